# Whole runs of the built program, driven from outside.
foreach(script export generate trained_chat label_order training bad_input examples interruption prepare matrix doctor placement prefix reconfigure sweep optimizers metrics run_directory careless shard)
  add_test(NAME plugins.${script} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/${script}_test.py ${CMAKE_BINARY_DIR})
  set_tests_properties(plugins.${script} PROPERTIES LABELS plugins TIMEOUT 600 PROCESSORS 2)
endforeach()
add_test(NAME plugins.gains COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/gains_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.gains PROPERTIES LABELS long TIMEOUT 2400 PROCESSORS 2)
add_test(NAME plugins.clothing COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/clothing_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.clothing PROPERTIES LABELS long TIMEOUT 3600 PROCESSORS 2)

add_test(NAME plugins.prepare_long COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/prepare_long_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.prepare_long PROPERTIES LABELS long TIMEOUT 7200 PROCESSORS 2)

# The reference page is what the program says of itself.
add_test(NAME plugins.reference COMMAND bash -c "$<TARGET_FILE:attune-program> describe --all --markdown | diff ${PROJECT_SOURCE_DIR}/docs/reference.md -")
set_tests_properties(plugins.reference PROPERTIES LABELS plugins)

# Killed at random: a few times always, a hundred times on request.
add_test(NAME plugins.torture COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/torture_test.py ${CMAKE_BINARY_DIR} 4)
set_tests_properties(plugins.torture PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
add_test(NAME plugins.torture_100 COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/torture_test.py ${CMAKE_BINARY_DIR} 100)
set_tests_properties(plugins.torture_100 PROPERTIES LABELS long TIMEOUT 2400 PROCESSORS 2)
