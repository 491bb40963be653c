attune_add_test(metrics LABEL unit TORCH LINK attune_nn SOURCES unit/metrics.cpp)
