// The forms in which c10d asks for collectives: lists of tensors, single tensors, any memory
// layout.
#pragma once
#include "parallel/collectives.hpp"

namespace attune::parallel {

using Tensors = std::vector<at::Tensor>;

/// The elements of all tensors, one behind another: a view where they lie so in memory, otherwise a
/// copy.
at::Tensor in_one_row(const Tensors& tensors);

/// bfloat16 and float16 are reduced as float32.
void all_reduce(const Collectives& collectives, const at::Tensor& tensor, Reduction op);
void broadcast(const Collectives& collectives, const at::Tensor& tensor, int from);

/// inputs: for each rank; their sizes may differ.
void reduce_scatter_list(const Collectives& collectives, const at::Tensor& output,
                         const Tensors& inputs, Reduction op);
/// Contiguous tensors, with equal blocks for all ranks.
void reduce_scatter_tensor(const Collectives& collectives, const at::Tensor& output,
                           const at::Tensor& input, Reduction op);

/// outputs: of each rank; their sizes may differ.
void all_gather_list(const Collectives& collectives, const Tensors& outputs,
                     const at::Tensor& input);
/// Contiguous tensors, with equal blocks of all ranks.
void all_gather_tensor(const Collectives& collectives, const at::Tensor& output,
                       const at::Tensor& input);

void all_to_all_list(const Collectives& collectives, const Tensors& outputs, const Tensors& inputs);
/// Contiguous tensors, divided along the first dimension by these sizes; evenly without sizes.
void all_to_all_tensor(const Collectives& collectives, const at::Tensor& output,
                       const at::Tensor& input, const std::vector<std::int64_t>& output_sizes,
                       const std::vector<std::int64_t>& input_sizes);

}  // namespace attune::parallel
