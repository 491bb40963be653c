attune_add_test(data_ranks LABEL mpi RANKS 1 2 4 LINK attune_data SOURCES mpi/data.cpp)
