attune_add_test(parallel LABEL mpi RANKS 1 2 3 4 TORCH LINK attune_weights attune_parallel SOURCES ${CMAKE_CURRENT_LIST_DIR}/parallel.cpp)

# What becomes of a whole run when one rank fails: judged from outside, with a time limit.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_executable(parallel_faults ${CMAKE_CURRENT_LIST_DIR}/parallel_faults.cpp ${PROJECT_SOURCE_DIR}/launchers/attune/ranks.cpp)
target_include_directories(parallel_faults PRIVATE ${PROJECT_SOURCE_DIR}/launchers/attune)
set_target_properties(parallel_faults PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(parallel_faults PRIVATE attune_slurm)
add_test(NAME mpi.parallel_faults COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/parallel_faults.py
         $<TARGET_FILE:parallel_faults> ${MPIEXEC_EXECUTABLE})
set_tests_properties(mpi.parallel_faults PROPERTIES LABELS "mpi;ranks4" TIMEOUT 180 PROCESSORS 2
  ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_NUM_THREADS=1")
