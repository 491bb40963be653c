attune_add_test(scalars LABEL mpi RANKS 1 2 4 LINK attune_train SOURCES ${CMAKE_CURRENT_LIST_DIR}/scalars.cpp)
