add_test(NAME bench.reproducible COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/reproducible_bench.py ${CMAKE_BINARY_DIR})
set_tests_properties(bench.reproducible PROPERTIES LABELS bench TIMEOUT 900 PROCESSORS 2)
