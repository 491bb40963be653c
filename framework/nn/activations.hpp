// How much memory a forward pass keeps for the backward pass.
#pragma once
#include <attune/model.hpp>

#include <cstddef>
#include <functional>

namespace attune::nn {

/// Bytes of the tensors on the host that Model::features(batch) leaves alive: its result and what autograd keeps, with what is trained as it is now. The
/// pass is computed.
std::size_t activation_bytes(Model& model, const Batch& batch);

/// The same for `samples` samples of `length` tokens each, found from three short passes over two of them: bytes are a polynomial of second degree in the
/// length (attention that keeps its scores), and of first degree in the number of samples. Exact but for attention windows, which show beyond the
/// lengths that are tried. make_batch(samples, length) makes a batch; a model without tokens is tried with one and two samples, whatever their length.
std::size_t estimate_activations(Model& model, std::int64_t samples, std::int64_t length, const std::function<Batch(std::int64_t samples, std::int64_t length)>& make_batch);

}  // namespace attune::nn
