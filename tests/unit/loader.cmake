attune_add_test(loader LABEL unit LINK attune_data SOURCES unit/data_loader.cpp)
attune_add_test(reading LABEL bench LINK attune_data SOURCES unit/reading_bench.cpp)

# The reading thread under ThreadSanitizer. It is a template without LibTorch, so that all the code of the test is instrumented.
add_executable(test_prefetch unit/prefetch.cpp)
set_target_properties(test_prefetch PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(test_prefetch PRIVATE ${PROJECT_SOURCE_DIR}/framework)
target_compile_options(test_prefetch PRIVATE -fsanitize=thread -g)
target_link_options(test_prefetch PRIVATE -fsanitize=thread)
target_link_libraries(test_prefetch PRIVATE GTest::gtest_main)
add_test(NAME unit.prefetch COMMAND test_prefetch)
set_tests_properties(unit.prefetch PROPERTIES LABELS unit TIMEOUT 60 ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1")
