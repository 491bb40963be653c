attune_add_test(nn LABEL unit TORCH LINK attune_nn SOURCES unit/nn.cpp)
attune_add_test(nn_plugins LABEL unit TORCH LINK attune nlohmann_json::nlohmann_json SOURCES unit/nn_plugins.cpp)
add_dependencies(test_nn_plugins attune_plugin_llama attune_plugin_bert attune_plugin_full attune_plugin_freeze attune_plugin_lora)
