// Recognition of the allocators' out-of-memory exceptions.
#pragma once
#include <exception>

namespace attune {

/// Whether the exception means out of memory, on the host or the GPU.
bool is_out_of_memory(const std::exception& error);

}  // namespace attune
