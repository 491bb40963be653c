attune_add_test(config LABEL unit LINK attune_config SOURCES ${CMAKE_CURRENT_LIST_DIR}/config.cpp)
