add_test(NAME bench.speed COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/speed_bench.py ${CMAKE_BINARY_DIR})
set_tests_properties(bench.speed PROPERTIES LABELS bench TIMEOUT 5400 PROCESSORS 2 RUN_SERIAL ON)
