# The script for a machine with a GPU, rehearsed with small models on a simulated device.
add_test(NAME parity.device_rehearsal COMMAND ${CMAKE_CURRENT_LIST_DIR}/run --build ${CMAKE_BINARY_DIR} --python ${PROJECT_SOURCE_DIR}/.venv/bin/python --device sim)
set_tests_properties(parity.device_rehearsal PROPERTIES LABELS parity TIMEOUT 900 PROCESSORS 2)
