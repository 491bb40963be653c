attune_add_test(shards LABEL mpi RANKS 1 2 3 4 TORCH LINK attune_whole SOURCES ${CMAKE_CURRENT_LIST_DIR}/shards.cpp)
add_dependencies(test_shards product)
attune_add_test(scattered LABEL mpi RANKS 2 3 4 TORCH LINK attune_whole SOURCES ${CMAKE_CURRENT_LIST_DIR}/scattered.cpp)
