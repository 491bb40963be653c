# Every optimizer beside its reference, every schedule beside transformers'.
add_executable(optimizers_parity parity/optimizers_parity.cpp)
set_target_properties(optimizers_parity PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(optimizers_parity PRIVATE attune_whole nlohmann_json::nlohmann_json)
target_include_directories(optimizers_parity PRIVATE ${PROJECT_SOURCE_DIR}/framework)
attune_precompiled_torch(optimizers_parity)
add_dependencies(optimizers_parity product)
add_test(NAME parity.optimizers COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/optimizers_parity.py
         $<TARGET_FILE:optimizers_parity> ${CMAKE_BINARY_DIR})
set_tests_properties(parity.optimizers PROPERTIES LABELS parity TIMEOUT 300 PROCESSORS 2)
