attune_add_test(sweep LABEL unit LINK attune_sweep SOURCES unit/sweep.cpp)
