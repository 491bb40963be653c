# The path of a user who only installs Attune.
add_test(NAME plugins.install.1
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/install_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(plugins.install.1 PROPERTIES LABELS "plugins;ranks1" TIMEOUT 1500 PROCESSORS 2
  ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_NUM_THREADS=1")
