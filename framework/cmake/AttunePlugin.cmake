# attune_add_plugin(NAME [NOT_INSTALLED] sources...): the plugin library plugins/NAME.so below the build folder, installed to
# lib/attune/plugins. Works in this tree and, through find_package(Attune), in anyone's.
function(attune_add_plugin name)
  cmake_parse_arguments(arg "NOT_INSTALLED" "" "" ${ARGN})
  add_library(attune_plugin_${name} MODULE ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(attune_plugin_${name} PRIVATE Attune::attune)
  target_compile_features(attune_plugin_${name} PRIVATE cxx_std_20)
  target_compile_definitions(attune_plugin_${name} PRIVATE ATTUNE_BUILD_ID="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE}")
  set_target_properties(attune_plugin_${name} PROPERTIES
    OUTPUT_NAME ${name} PREFIX "" DEFINE_SYMBOL "" CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins
    INSTALL_RPATH "$ORIGIN/../.." INSTALL_RPATH_USE_LINK_PATH ON)
  # What Attune does not export is an error of the build, not of a run. Clang leaves a sanitizer's symbols to the program.
  if(NOT ATTUNE_SANITIZE AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
    target_link_options(attune_plugin_${name} PRIVATE -Wl,-z,defs)
  endif()
  if(COMMAND attune_precompiled_torch)
    attune_precompiled_torch(attune_plugin_${name})
  endif()
  if(NOT arg_NOT_INSTALLED)
    install(TARGETS attune_plugin_${name} LIBRARY DESTINATION lib/attune/plugins)
  endif()
endfunction()
