// Padding-free batches, the input of a model. Samples are concatenated: pad tokens are neither
// stored nor computed, and attention never crosses a sample boundary.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

class Model;

/// Target of a position that the loss ignores (ignore_index of PyTorch's losses).
inline constexpr std::int64_t ignored_target = -100;

struct Batch {
  at::Tensor tokens;     // int64 [T]; undefined for data without tokens
  at::Tensor positions;  // int64 [T], counted from 0 in each sample
  // sequence offsets, [B+1] on the host: sample b is rows starts[b] .. starts[b+1]-1
  std::vector<std::int64_t> starts{0};
  // One target per row of Model::features. Decoders: N = T, already shifted (row t predicts
  // targets[t]). Classifiers: N = B. The dtype selects the loss:
  //   int64 [N]              class index, or ignored_target
  //   float32 [N, outputs]   multi-label, 0 or 1 each
  //   float32 [N]            regression value
  at::Tensor targets;
  std::map<std::string, at::Tensor> columns;  // further columns of the dataset plugin
  // cached result of Model::hidden_after for these samples; undefined: computed from the tokens
  at::Tensor hidden;
  std::int64_t hidden_parts = 0;  // number of model parts that `hidden` covers
  // model that `hidden` belongs to; any other model, such as a teacher, starts from the tokens
  const Model* hidden_of = nullptr;
  // row numbers in the split; one row may give several samples (a preference pair gives two)
  std::vector<std::int64_t> ids;

  // tensors of this batch on a device, each with the host tensor that it is a copy of
  std::vector<std::pair<at::Tensor, at::Tensor>> host_copies;

  /// `tensor` in the memory of the host. The host waits for the device unless `tensor` is on the
  /// host or came from put().
  at::Tensor on_host(const at::Tensor& tensor) const;
  /// A copy of a host tensor on `device`, for this batch; the tensor itself if it is there.
  at::Tensor put(const at::Tensor& tensor, c10::Device device);

  std::int64_t samples() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  std::int64_t length() const { return starts.back(); }
};

/// Concatenates samples into a batch with tokens, positions and starts. Each is int32 or int64
/// [n_i].
Batch pack(const std::vector<at::Tensor>& tokens);

/// Next-token targets of one sample, int64 [n]. Row t predicts tokens[t + 1] if mask[t + 1] is 1,
/// and is ignored_target otherwise; so is the last row. An undefined mask selects all tokens.
/// tokens: int32 or int64 [n]. mask: uint8 [n].
at::Tensor next_token_targets(const at::Tensor& tokens, const at::Tensor& mask = {});

}  // namespace attune
ATTUNE_API_END
