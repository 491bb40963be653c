# What users' files hold, against the libraries that write and read them: briefly in the gate, longer on request.
foreach(script tables pandas conversations)
  add_test(NAME plugins.${script} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/${script}_test.py ${CMAKE_BINARY_DIR})
  set_tests_properties(plugins.${script} PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
  add_test(NAME plugins.${script}_long COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/${script}_test.py ${CMAKE_BINARY_DIR} 60)
  set_tests_properties(plugins.${script}_long PROPERTIES LABELS long TIMEOUT 1200 PROCESSORS 2)
endforeach()
