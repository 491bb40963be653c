add_test(NAME plugins.models COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/models_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.models PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
