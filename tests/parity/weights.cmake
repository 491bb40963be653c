# Needs the model packages in models/ and the Python packages in .venv.
add_test(NAME parity.weights
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/parity/weights_parity.py $<TARGET_FILE:attune-program> ${PROJECT_SOURCE_DIR}/models)
set_tests_properties(parity.weights PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2 ENVIRONMENT "HF_HUB_OFFLINE=1;TQDM_DISABLE=1")
# Models made by transformers and written as GGUF; needs no package of a model.
add_test(NAME parity.gguf
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/parity/gguf_parity.py
          $<TARGET_FILE:attune-program> $<TARGET_FILE:model_parity> ${CMAKE_BINARY_DIR}/plugins)
set_tests_properties(parity.gguf PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2 ENVIRONMENT "HF_HUB_OFFLINE=1;TQDM_DISABLE=1")
add_test(NAME parity.weight_files
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/parity/weight_files_parity.py $<TARGET_FILE:attune-program>)
set_tests_properties(parity.weight_files PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2 ENVIRONMENT "HF_HUB_OFFLINE=1;TQDM_DISABLE=1")
