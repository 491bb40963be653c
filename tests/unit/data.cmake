attune_add_test(data LABEL unit LINK attune_prepare SOURCES unit/data_source.cpp unit/data_store.cpp unit/data_prepare.cpp unit/data_steps.cpp)
