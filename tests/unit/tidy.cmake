# unit.tidy reads LibTorch's headers once for every unit of compile_commands.json. Small plugins are put together into units for it alone: their
# names do not collide, but for the function that each of them exports.
function(attune_tidy_unit name)
  set(text "#include <attune/plugin.hpp>\n#undef ATTUNE_PLUGIN\n#define ATTUNE_JOIN_(a, b) a##b\n#define ATTUNE_JOIN(a, b) ATTUNE_JOIN_(a, b)\n")
  string(APPEND text "#define ATTUNE_PLUGIN(name, version, registry) void ATTUNE_JOIN(add_, __COUNTER__)(attune::Registry & registry)\n")
  foreach(folder ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/plugins/${folder}/*/*.cpp)
    foreach(source ${sources})
      string(APPEND text "#include \"${source}\"\n")
    endforeach()
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/tidy/${name}.cpp CONTENT "${text}" @ONLY)
endfunction()

attune_tidy_unit(strategies strategies)
attune_tidy_unit(others optimizers schedules callbacks)
add_library(attune_tidy OBJECT EXCLUDE_FROM_ALL ${CMAKE_BINARY_DIR}/tidy/strategies.cpp ${CMAKE_BINARY_DIR}/tidy/others.cpp)
target_link_libraries(attune_tidy PRIVATE attune)

add_test(NAME unit.tidy COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/tidy.sh ${CMAKE_BINARY_DIR})
set_tests_properties(unit.tidy PROPERTIES LABELS unit TIMEOUT 1200 PROCESSORS 2)
