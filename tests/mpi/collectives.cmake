attune_add_test(collectives LABEL mpi RANKS 1 2 3 4 TORCH LINK attune_parallel SOURCES ${CMAKE_CURRENT_LIST_DIR}/collectives.cpp)
