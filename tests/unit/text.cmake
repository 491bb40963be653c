attune_add_test(text LABEL unit LINK attune_text SOURCES
  ${CMAKE_CURRENT_SOURCE_DIR}/unit/tokenizer_folders.cpp ${CMAKE_CURRENT_SOURCE_DIR}/unit/text.cpp ${CMAKE_CURRENT_SOURCE_DIR}/unit/text_stages.cpp ${CMAKE_CURRENT_SOURCE_DIR}/unit/text_forged.cpp)
