attune_add_test(data_ranks LABEL mpi RANKS 1 2 4 TIMEOUT 300 LINK attune_prepare SOURCES mpi/data.cpp)
