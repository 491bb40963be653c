attune_add_test(models LABEL unit TORCH LINK attune nlohmann_json::nlohmann_json SOURCES unit/models.cpp)
foreach(plugin llama gpt2 bert vit efficientnet full)
  add_dependencies(test_models attune_plugin_${plugin})
endforeach()
