// Of CUDA's toolkit, what nccl.h needs.
#pragma once
typedef struct CUstream_st* cudaStream_t;
