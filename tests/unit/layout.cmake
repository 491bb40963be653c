add_test(NAME unit.layout COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/layout.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(unit.layout PROPERTIES LABELS unit TIMEOUT 60)

add_test(NAME unit.format COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/format.sh)
set_tests_properties(unit.format PROPERTIES LABELS unit TIMEOUT 120)
