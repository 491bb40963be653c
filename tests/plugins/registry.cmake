# Plugin libraries built to be refused, each in its own way. They need the note and the C struct alone.
function(attune_add_fixture name source)
  add_library(fixture_${name} MODULE ${CMAKE_CURRENT_LIST_DIR}/fixtures/${source})
  target_link_libraries(fixture_${name} PRIVATE attune_public_headers)
  target_include_directories(fixture_${name} SYSTEM PRIVATE $<TARGET_PROPERTY:attune_torch,INTERFACE_INCLUDE_DIRECTORIES>)
  add_dependencies(fixture_${name} attune_api_hash)
  target_compile_definitions(fixture_${name} PRIVATE ${ARGN})
  set_target_properties(fixture_${name} PROPERTIES OUTPUT_NAME ${name} PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/fixtures)
endfunction()

attune_add_fixture(empty forged.cpp)
attune_add_fixture(without_note forged.cpp FORGED_WITHOUT_NOTE)
attune_add_fixture(other_headers forged.cpp "FORGED_HEADERS=\"0123456789abcdef\"")
attune_add_fixture(other_everything forged.cpp "FORGED_HEADERS=\"0123456789abcdef\"" "FORGED_TORCH=\"2.12.0\"" "FORGED_COMPILER=\"clang++ 19\""
                   "FORGED_STANDARD=\"201703L\"")
attune_add_fixture(older_struct forged.cpp FORGED_SIZE=24)
attune_add_fixture(nameless forged.cpp FORGED_NAME=nullptr)
attune_add_fixture(throws forged.cpp FORGED_ADD_THROWS)
attune_add_fixture(needs_missing_symbol forged.cpp FORGED_NEEDS_MISSING_SYMBOL)
attune_add_fixture(not_a_plugin not_a_plugin.cpp)
target_link_options(fixture_needs_missing_symbol PRIVATE -Wl,--unresolved-symbols=ignore-all)
set(fixtures empty without_note other_headers other_everything older_struct nameless throws needs_missing_symbol not_a_plugin)
list(TRANSFORM fixtures PREPEND fixture_)

attune_add_test(registry LABEL plugins LINK attune_whole SOURCES ${CMAKE_CURRENT_LIST_DIR}/registry.cpp)
add_dependencies(test_registry ${fixtures})

# Whole plugins, as a user writes them, in a host that is linked as the program is.
foreach(name bitfit_fixture careless_fixture exact_match_fixture faulty_fixture paced_fixture twice_one twice_two)
  attune_add_plugin(${name} NOT_INSTALLED ${CMAKE_CURRENT_LIST_DIR}/fixtures/${name}.cpp)
  set_target_properties(attune_plugin_${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/fixtures)
endforeach()
attune_add_test(registry_plugins LABEL plugins TORCH LINK attune_whole SOURCES ${CMAKE_CURRENT_LIST_DIR}/registry_plugins.cpp)
add_dependencies(test_registry_plugins attune_plugin_bitfit_fixture attune_plugin_twice_one attune_plugin_twice_two)

# What is compared before a plugin is opened, and what libattune.so exports.
add_test(NAME plugins.abi COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/abi_test.py ${CMAKE_BINARY_DIR} ${CMAKE_CXX_COMPILER}
         $<TARGET_PROPERTY:attune_torch,INTERFACE_INCLUDE_DIRECTORIES> COMMAND_EXPAND_LISTS)
set_tests_properties(plugins.abi PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
