attune_add_test(placement LABEL unit LINK attune_placement SOURCES unit/placement.cpp)
