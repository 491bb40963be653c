add_test(NAME bench.cost COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/cost_bench.py ${CMAKE_BINARY_DIR})
set_tests_properties(bench.cost PROPERTIES LABELS bench TIMEOUT 3600 PROCESSORS 2 RUN_SERIAL ON)
