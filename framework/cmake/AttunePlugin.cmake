# attune_add_plugin(NAME sources...): a plugin library lib/NAME.so that `attune` loads. Works in this tree and, through
# find_package(Attune), in anyone's.
function(attune_add_plugin name)
  add_library(attune_plugin_${name} MODULE ${ARGN})
  target_link_libraries(attune_plugin_${name} PRIVATE Attune::attune)
  target_compile_features(attune_plugin_${name} PRIVATE cxx_std_20)
  target_compile_definitions(attune_plugin_${name} PRIVATE ATTUNE_BUILD_ID="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE}")
  set_target_properties(attune_plugin_${name} PROPERTIES
    OUTPUT_NAME ${name} PREFIX "" DEFINE_SYMBOL "" CXX_VISIBILITY_PRESET hidden
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins)
  if(COMMAND attune_precompiled_torch)
    attune_precompiled_torch(attune_plugin_${name})
  endif()
  install(TARGETS attune_plugin_${name} LIBRARY DESTINATION lib/attune/plugins)
endfunction()
