attune_add_test(train LABEL unit TORCH LINK attune_whole SOURCES ${CMAKE_CURRENT_LIST_DIR}/train.cpp)
add_dependencies(test_train product)
