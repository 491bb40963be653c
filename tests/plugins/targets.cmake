add_test(NAME plugins.targets COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/targets_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.targets PROPERTIES LABELS plugins TIMEOUT 600 PROCESSORS 2)

# Samples that teach nothing, and teachers with padded embeddings.
add_test(NAME plugins.left_out COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/left_out_test.py $<TARGET_FILE:attune-program> ${CMAKE_BINARY_DIR}/tests/left_out)
set_tests_properties(plugins.left_out PROPERTIES LABELS plugins TIMEOUT 300 PROCESSORS 2)
