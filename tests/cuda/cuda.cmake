# With a LibTorch for NVIDIA GPUs from its wheel: what Attune declares of NCCL is what NCCL's own header says, and the library is found.
# The header asks for a CUDA toolkit, of which it needs two names.
file(GLOB nccl_include ${attune_wheels}/nvidia/nccl/include)
if(EXISTS ${nccl_include}/nccl.h)
  attune_add_test(nccl LABEL unit TORCH LINK attune_parallel SOURCES ${CMAKE_CURRENT_LIST_DIR}/nccl_test.cpp)
  target_include_directories(test_nccl SYSTEM PRIVATE ${nccl_include} ${CMAKE_CURRENT_LIST_DIR}/toolkit)
endif()
