# Simulated devices, for tests of what runs on GPUs: linked into a test's program, or as a plugin of the whole program.
set(simdev ${CMAKE_CURRENT_LIST_DIR})
set(simdev_sources ${simdev}/collectives.cpp ${simdev}/counters.cpp ${simdev}/device.cpp ${simdev}/memory.cpp ${simdev}/operators.cpp)
attune_add_plugin(sim NOT_INSTALLED ${simdev}/plugin.cpp ${simdev_sources})
target_include_directories(attune_plugin_sim PRIVATE ${simdev})
set_target_properties(attune_plugin_sim PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/simdev)

attune_add_test(simdev LABEL unit TORCH LINK attune_torch SOURCES ${simdev}/simdev_test.cpp ${simdev_sources})
target_include_directories(test_simdev PRIVATE ${simdev})
attune_add_test(device LABEL unit TORCH LINK attune_device attune_data attune_placement SOURCES ${simdev}/device_test.cpp ${simdev_sources})
target_include_directories(test_device PRIVATE ${simdev})
attune_add_test(device_ranks LABEL mpi RANKS 1 2 4 TORCH LINK attune_parallel attune_placement SOURCES ${simdev}/ranks_test.cpp ${simdev_sources})
target_include_directories(test_device_ranks PRIVATE ${simdev})

add_test(NAME plugins.devices COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${simdev}/devices_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.devices PROPERTIES LABELS plugins TIMEOUT 1200 PROCESSORS 2)
add_test(NAME plugins.devices_long COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${simdev}/devices_test.py ${CMAKE_BINARY_DIR} --long)
set_tests_properties(plugins.devices_long PROPERTIES LABELS long TIMEOUT 7200 PROCESSORS 2)
