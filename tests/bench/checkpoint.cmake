attune_add_test(checkpoint_bench LABEL bench TIMEOUT 600 LINK attune_checkpoint SOURCES ${CMAKE_CURRENT_LIST_DIR}/checkpoint.cpp)
