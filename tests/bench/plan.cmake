add_test(NAME bench.plan COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/plan_bench.py ${CMAKE_BINARY_DIR})
set_tests_properties(bench.plan PROPERTIES LABELS bench TIMEOUT 1800 PROCESSORS 2 RUN_SERIAL ON)
