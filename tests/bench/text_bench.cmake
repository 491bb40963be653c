add_executable(text_bench ${CMAKE_CURRENT_SOURCE_DIR}/bench/text_bench.cpp)
set_target_properties(text_bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(text_bench PRIVATE attune_text)
add_test(NAME bench.text.1 COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/bench/text_bench.py $<TARGET_FILE:text_bench>
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(bench.text.1 PROPERTIES LABELS "bench" TIMEOUT 600 PROCESSORS 2 RUN_SERIAL ON)
