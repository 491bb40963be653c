attune_add_test(dataset_plugins LABEL plugins TORCH LINK attune_whole PkgConfig::HDF5 nlohmann_json::nlohmann_json tomlplusplus::tomlplusplus SOURCES ${CMAKE_CURRENT_LIST_DIR}/datasets.cpp)
foreach(kind instruction corpus classification token_classification preference images)
  add_dependencies(test_dataset_plugins attune_plugin_${kind})
endforeach()
