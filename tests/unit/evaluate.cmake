attune_add_test(evaluate LABEL unit RANKS 1 2 4 TORCH LINK attune_evaluate attune_run_directory SOURCES unit/evaluate.cpp)
