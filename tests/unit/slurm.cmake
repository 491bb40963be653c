attune_add_test(slurm LABEL unit LINK attune_slurm SOURCES unit/slurm.cpp)
