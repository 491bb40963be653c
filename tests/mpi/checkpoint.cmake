attune_add_test(checkpoint LABEL mpi RANKS 1 2 4 TORCH LINK attune_checkpoint SOURCES ${CMAKE_CURRENT_LIST_DIR}/checkpoint.cpp)
