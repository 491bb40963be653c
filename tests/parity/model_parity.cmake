# Needs the Python packages in .venv; smollm2, minilm and lite0 also the model packages in models/.
add_executable(model_parity parity/model_parity.cpp)
set_target_properties(model_parity PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(model_parity PRIVATE attune_whole nlohmann_json::nlohmann_json)
target_include_directories(model_parity PRIVATE ${PROJECT_SOURCE_DIR}/framework)
attune_precompiled_torch(model_parity)
foreach(plugin llama gpt2 bert vit efficientnet full lora)
  add_dependencies(model_parity attune_plugin_${plugin})
endforeach()
foreach(case llama mistral qwen2 qwen3 gemma2 gpt2 bert roberta distilbert vit efficientnet smollm2 minilm lite0)
  add_test(NAME parity.model_${case}
    COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/parity/model_parity.py
            ${case} $<TARGET_FILE:model_parity> ${CMAKE_BINARY_DIR}/plugins ${PROJECT_SOURCE_DIR}/models)
  set_tests_properties(parity.model_${case} PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2)
endforeach()
