attune_add_test(loop LABEL mpi RANKS 1 2 TORCH LINK attune_whole
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/loop.cpp ${PROJECT_SOURCE_DIR}/launchers/attune/example.cpp)
target_include_directories(test_loop PRIVATE ${PROJECT_SOURCE_DIR}/launchers/attune)
add_dependencies(test_loop product)
