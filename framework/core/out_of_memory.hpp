// What the different allocators throw when memory runs out.
#pragma once
#include <exception>

namespace attune {

/// Whether the exception says that memory ran out, on the host or on the GPU.
bool is_out_of_memory(const std::exception& error);

}  // namespace attune
