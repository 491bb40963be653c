# The recipes of datasets/: those of small packages always, the others among the long tests.
function(attune_add_recipes_test name label)
  add_test(NAME plugins.${name} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/recipes_test.py ${CMAKE_BINARY_DIR} ${ARGN})
  set_tests_properties(plugins.${name} PROPERTIES LABELS ${label} TIMEOUT 1200 PROCESSORS 2)
endfunction()
attune_add_recipes_test(recipes plugins foldoc vader alpaca dpo)
attune_add_recipes_test(large_recipes long pydocs newsgroups fashion-mnist)
