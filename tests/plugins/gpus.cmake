# GPUs of a job, on a machine that needs none.
add_test(NAME plugins.gpus COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/gpus_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.gpus PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 1)
