# The job-script templates on a real Slurm cluster of virtual nodes.
add_test(NAME cluster.slurm COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/slurm_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(cluster.slurm PROPERTIES LABELS cluster TIMEOUT 600 PROCESSORS 2)
