add_test(NAME bench.shard COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/shard_bench.py ${CMAKE_BINARY_DIR})
set_tests_properties(bench.shard PROPERTIES LABELS bench TIMEOUT 1800 PROCESSORS 2)
