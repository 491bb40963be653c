# What the public headers need, for the framework's own build and for find_package(Attune) alike.
find_package(fmt REQUIRED)  # header-only: LibTorch brings fmt headers of its own, which come first and have no library
find_package(nlohmann_json REQUIRED)
# Official LibTorch builds hold kineto inside libtorch_cpu, yet TorchConfig warns when it finds no library of that name.
set(kineto_LIBRARY torch)
find_package(Torch REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
if(NOT TARGET attune_torch)
  add_library(attune_torch INTERFACE IMPORTED)
  # TorchConfig puts its ABI flag in a variable; headers as system headers, so that their warnings are not ours.
  separate_arguments(attune_torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(attune_torch INTERFACE ${attune_torch_flags})
  # at::parallel_for is a loop on one thread in every file that is compiled without OpenMP.
  target_link_libraries(attune_torch INTERFACE ${TORCH_LIBRARIES} OpenMP::OpenMP_CXX)
  target_include_directories(attune_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
endif()
