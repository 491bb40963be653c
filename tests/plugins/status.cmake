# What status, cancel and logs say of run directories, with stand-ins for Slurm's commands; tests/cluster tries them on a real cluster.
add_test(NAME plugins.status COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/status_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.status PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 1)
