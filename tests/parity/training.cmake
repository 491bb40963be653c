# Twenty steps beside transformers and peft, with the built program.
foreach(case tiny smollm2)
  add_test(NAME parity.training_${case} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/training_parity.py ${case} ${CMAKE_BINARY_DIR})
  set_tests_properties(parity.training_${case} PROPERTIES LABELS parity TIMEOUT 900 PROCESSORS 2)
endforeach()
