attune_add_test(ring LABEL mpi RANKS 2 3 4 5 TORCH LINK attune_parallel SOURCES ${CMAKE_CURRENT_LIST_DIR}/ring.cpp)
