attune_add_test(promises LABEL plugins TORCH LINK attune_whole SOURCES ${CMAKE_CURRENT_LIST_DIR}/promises.cpp)
add_dependencies(test_promises product)
