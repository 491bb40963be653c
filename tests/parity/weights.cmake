# Needs the model packages in models/ and the Python packages in .venv.
add_test(NAME parity.weights
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/parity/weights_parity.py $<TARGET_FILE:attune-program> ${PROJECT_SOURCE_DIR}/models)
set_tests_properties(parity.weights PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2 ENVIRONMENT "HF_HUB_OFFLINE=1;TQDM_DISABLE=1")
