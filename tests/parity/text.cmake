attune_add_test(text_parity LABEL parity LINK attune_text attune_weights TIMEOUT 600 SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/parity/text_parity.cpp)
attune_add_test(tokenizer_folders LABEL parity LINK attune_text attune_weights TIMEOUT 300 SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/parity/tokenizer_folders.cpp)
attune_add_test(vocabularies LABEL parity LINK attune_text attune_weights TIMEOUT 300 SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/parity/vocabularies.cpp)

# The random parts of both for a minute each, with another seed than the gate's.
foreach(test tokenizer_folders vocabularies)
  add_test(NAME parity.${test}_long COMMAND test_${test} --gtest_filter=*Random* WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parity.${test}_long PROPERTIES LABELS long TIMEOUT 900 ENVIRONMENT "ATTUNE_SECONDS=60;ATTUNE_SEED=29")
endforeach()
