# What the public headers need, for the framework's own build and for find_package(Attune) alike.
find_package(fmt REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(Torch REQUIRED)
if(NOT TARGET attune_torch)
  add_library(attune_torch INTERFACE IMPORTED)
  # TorchConfig puts its ABI flag in a variable; headers as system headers, so that their warnings are not ours.
  separate_arguments(attune_torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(attune_torch INTERFACE ${attune_torch_flags})
  target_link_libraries(attune_torch INTERFACE ${TORCH_LIBRARIES})
  target_include_directories(attune_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
endif()
