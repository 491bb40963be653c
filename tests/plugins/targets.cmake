add_test(NAME plugins.targets COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/targets_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.targets PROPERTIES LABELS plugins TIMEOUT 600 PROCESSORS 2)
