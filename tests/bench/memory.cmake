add_test(NAME bench.memory COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/memory_bench.py ${CMAKE_BINARY_DIR})
set_tests_properties(bench.memory PROPERTIES LABELS bench TIMEOUT 1800 PROCESSORS 2)
