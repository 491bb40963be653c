# Twenty steps beside transformers and peft, with the built program.
foreach(case tiny smollm2)
  add_test(NAME parity.training_${case} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/training_parity.py ${case} ${CMAKE_BINARY_DIR})
  set_tests_properties(parity.training_${case} PROPERTIES LABELS parity TIMEOUT 900 PROCESSORS 2)
endforeach()

# Adapters as PEFT writes them, loaded by both: a fixed choice, and random configurations for a minute.
set(adapters_parity ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/adapters_parity.py $<TARGET_FILE:attune-program>)
add_test(NAME parity.adapters COMMAND ${adapters_parity} ${CMAKE_BINARY_DIR}/tests/adapters_parity)
set_tests_properties(parity.adapters PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2)
add_test(NAME parity.adapters_random COMMAND ${adapters_parity} ${CMAKE_BINARY_DIR}/tests/adapters_random 60)
set_tests_properties(parity.adapters_random PROPERTIES LABELS long TIMEOUT 600 PROCESSORS 2)
