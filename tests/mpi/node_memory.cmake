attune_add_test(node_memory LABEL mpi RANKS 1 2 4 TORCH LINK attune_weights attune_parallel SOURCES ${CMAKE_CURRENT_LIST_DIR}/node_memory.cpp)
