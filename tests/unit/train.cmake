attune_add_test(train LABEL unit TORCH LINK attune_train SOURCES ${CMAKE_CURRENT_LIST_DIR}/train.cpp)
