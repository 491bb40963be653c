add_test(NAME unit.layout COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/layout.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(unit.layout PROPERTIES LABELS unit TIMEOUT 60)

add_test(NAME unit.format COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/format.sh)
set_tests_properties(unit.format PROPERTIES LABELS unit TIMEOUT 120)

# jemalloc is worth a tenth of a step; a linker leaves it out without a word, and it passes over settings that are not exported.
if(JEMALLOC_FOUND)
  add_test(NAME unit.allocator COMMAND readelf --wide --dynamic --dyn-syms $<TARGET_FILE:attune-program>)
  set_tests_properties(unit.allocator PROPERTIES LABELS unit TIMEOUT 10 PASS_REGULAR_EXPRESSION "NEEDED[^\n]*libjemalloc.* malloc_conf")
endif()
