attune_add_test(text_parity LABEL parity LINK attune_text attune_weights TIMEOUT 600 SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/parity/text_parity.cpp)
attune_add_test(tokenizer_folders LABEL parity LINK attune_text attune_weights TIMEOUT 300 SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/parity/tokenizer_folders.cpp)
attune_add_test(vocabularies LABEL parity LINK attune_text attune_weights TIMEOUT 300 SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/parity/vocabularies.cpp)
