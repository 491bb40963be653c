add_test(NAME plugins.inspect COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/inspect_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.inspect PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
