attune_add_test(config LABEL unit LINK attune_config SOURCES ${CMAKE_CURRENT_LIST_DIR}/config.cpp)
attune_add_test(cache LABEL unit LINK attune_core SOURCES ${CMAKE_CURRENT_LIST_DIR}/cache.cpp)
