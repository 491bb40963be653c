attune_add_test(models LABEL unit TORCH LINK attune_whole nlohmann_json::nlohmann_json SOURCES unit/models.cpp)
add_dependencies(test_models product)
