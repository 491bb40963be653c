# What the public headers need, for the framework's own build and for find_package(Attune) alike.
find_package(fmt REQUIRED)  # header-only: LibTorch brings fmt headers of its own, which come first and have no library
find_package(nlohmann_json 3.11 REQUIRED)  # whose namespace names its version: attune/built_for.hpp
# LibTorch computes with GCC's OpenMP. That of Clang is another library, and two in one process disturb each other: what Clang builds (the fuzzers)
# computes on one thread.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()

# LibTorch: a folder of CMAKE_PREFIX_PATH with lib/libtorch.so and the C++ headers. Not find_package(Torch): in a CUDA build, which is what the package
# index hands out by default, its TorchConfig wants a whole CUDA toolkit with compiler and device, and Attune's own code needs none of it.
find_library(attune_libtorch torch NO_CACHE REQUIRED)
get_filename_component(TORCH_INSTALL_PREFIX ${attune_libtorch} DIRECTORY)
get_filename_component(TORCH_INSTALL_PREFIX ${TORCH_INSTALL_PREFIX} DIRECTORY)
if(NOT EXISTS ${TORCH_INSTALL_PREFIX}/include/torch/csrc/api/include/torch/torch.h)
  message(FATAL_ERROR "${attune_libtorch} has no C++ headers beside it; name a whole LibTorch: -DCMAKE_PREFIX_PATH=/path/to/libtorch")
endif()
message(STATUS "Found LibTorch: ${TORCH_INSTALL_PREFIX}")

if(NOT TARGET attune_torch)
  add_library(attune_torch INTERFACE IMPORTED)
  # Headers as system headers, so that their warnings are not ours.
  target_include_directories(attune_torch SYSTEM INTERFACE
    ${TORCH_INSTALL_PREFIX}/include ${TORCH_INSTALL_PREFIX}/include/torch/csrc/api/include)
  target_compile_definitions(attune_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO USE_RPC USE_TENSORPIPE)  # as LibTorch's own targets say
  # libtorch.so has no symbols and brings the devices' libraries: it stays although nothing is taken from it. A CUDA build's libraries find the wheels
  # that they need by their own paths, and only when the program runs. One item, for CMake moves libraries out from between flags.
  target_link_libraries(attune_torch INTERFACE
    -Wl,--push-state,--no-as-needed,${attune_libtorch},--pop-state ${TORCH_INSTALL_PREFIX}/lib/libtorch_cpu.so ${TORCH_INSTALL_PREFIX}/lib/libc10.so)
  target_link_options(attune_torch INTERFACE -Wl,--allow-shlib-undefined)
  # at::parallel_for is a loop on one thread in every file that is compiled without OpenMP. As a flag, not as the target
  # OpenMP::OpenMP_CXX: that names the compiler's libgomp by its path, and CMake warns for every target when LibTorch brings one, too.
  separate_arguments(attune_openmp_flags UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  target_compile_options(attune_torch INTERFACE ${attune_openmp_flags})
  target_link_options(attune_torch INTERFACE ${attune_openmp_flags})
endif()
