attune_add_test(mesh LABEL mpi RANKS 1 2 3 4 TORCH LINK attune_train SOURCES ${CMAKE_CURRENT_LIST_DIR}/mesh.cpp)

# A whole run on a mesh with shards, which no option asks for yet.
add_executable(mesh_run ${CMAKE_CURRENT_LIST_DIR}/mesh_run.cpp)
set_target_properties(mesh_run PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(mesh_run PRIVATE ${PROJECT_SOURCE_DIR}/framework)
target_link_libraries(mesh_run PRIVATE attune_whole nlohmann_json::nlohmann_json MPI::MPI_C)
attune_precompiled_torch(mesh_run)
add_test(NAME mpi.mesh_run COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${CMAKE_CURRENT_LIST_DIR}/mesh_run_test.py ${CMAKE_BINARY_DIR})
set_tests_properties(mpi.mesh_run PROPERTIES LABELS "mpi;ranks4" TIMEOUT 300 PROCESSORS 2)
