add_test(NAME plugins.one_base COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/one_base_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.one_base PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
add_test(NAME plugins.one_base_long COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/one_base_test.py ${CMAKE_BINARY_DIR} 50)
set_tests_properties(plugins.one_base_long PROPERTIES LABELS long TIMEOUT 600 PROCESSORS 2)
