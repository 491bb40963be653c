attune_add_test(fuzz_corpus LABEL unit LINK attune_prepare attune_run_directory attune_registry SOURCES fuzz/readers.cpp fuzz/corpus.cpp)

# libFuzzer comes with clang: a build of its own, made when the tests below are run.
if(ATTUNE_SANITIZE MATCHES fuzzer)
  add_executable(fuzz fuzz/readers.cpp fuzz/libfuzzer.cpp)
  target_link_libraries(fuzz PRIVATE attune_prepare attune_run_directory attune_registry)
  target_link_options(fuzz PRIVATE -fsanitize=fuzzer)
endif()

add_test(NAME fuzz.build COMMAND ${CMAKE_CURRENT_LIST_DIR}/run build WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(fuzz.build PROPERTIES LABELS long TIMEOUT 3600 PROCESSORS 2 FIXTURES_SETUP fuzz)
foreach(reader json gguf safetensors tokenizer hdf5 sentencepiece tekken tiktoken merges vocab_txt tokenizer_config chat_template run_directory plugin)
  add_test(NAME fuzz.${reader} COMMAND ${CMAKE_CURRENT_LIST_DIR}/run ${reader} 60 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(fuzz.${reader} PROPERTIES LABELS long TIMEOUT 300 FIXTURES_REQUIRED fuzz)
endforeach()
