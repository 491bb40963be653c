attune_add_test(run_directory LABEL unit LINK attune_run_directory attune_parallel SOURCES unit/run_directory.cpp unit/run_lock.cpp)
