# Chat templates, rendered by transformers and by us: a few conversations for each in the gate, for a minute when long tests are asked for.
add_executable(test_chat_parity ${CMAKE_CURRENT_LIST_DIR}/chat_parity.cpp)
set_target_properties(test_chat_parity PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(test_chat_parity PRIVATE attune_text)
foreach(case "chat 6 1 parity" "chat_long 70 2 long")
  separate_arguments(case UNIX_COMMAND ${case})
  list(GET case 0 name)
  list(GET case 1 count)
  list(GET case 2 seed)
  list(GET case 3 label)
  add_test(NAME parity.${name} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/chat_parity.py
    $<TARGET_FILE:test_chat_parity> ${PROJECT_SOURCE_DIR}/data/chat-templates ${CMAKE_BINARY_DIR}/${name}_parity ${count} ${seed})
  set_tests_properties(parity.${name} PROPERTIES LABELS ${label} TIMEOUT 600 ENVIRONMENT "HF_HUB_OFFLINE=1")
endforeach()
