add_executable(text_bench ${CMAKE_CURRENT_SOURCE_DIR}/bench/text_bench.cpp)
set_target_properties(text_bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(text_bench PRIVATE attune_text)
add_test(NAME bench.data COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_SOURCE_DIR}/bench/data_bench.py ${CMAKE_BINARY_DIR}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(bench.data PROPERTIES LABELS "bench" TIMEOUT 1800 PROCESSORS 2 RUN_SERIAL ON)
