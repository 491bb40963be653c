attune_add_test(checkpoint LABEL mpi RANKS 1 2 4 TORCH LINK attune_checkpoint SOURCES ${CMAKE_CURRENT_LIST_DIR}/checkpoint.cpp)

# Every file-system call of a save fails once, in turn.
add_library(faulty_io MODULE ${CMAKE_CURRENT_LIST_DIR}/../support/faulty_io.cpp)
set_target_properties(faulty_io PROPERTIES PREFIX "" CXX_VISIBILITY_PRESET default LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(faulty_io PRIVATE ${CMAKE_DL_LIBS})
attune_add_test(checkpoint_faults LABEL mpi LINK attune_checkpoint SOURCES ${CMAKE_CURRENT_LIST_DIR}/checkpoint_faults.cpp)
add_dependencies(test_checkpoint_faults faulty_io)
set_property(TEST mpi.checkpoint_faults.1 APPEND PROPERTY ENVIRONMENT "LD_PRELOAD=$<TARGET_FILE:faulty_io>")
