// What a model sees. Samples lie end to end: no pad token is ever stored or computed, and attention
// never crosses a sample.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

class Model;

/// Marks a position that is not trained on (the value PyTorch's losses use).
inline constexpr std::int64_t ignored_target = -100;

struct Batch {
  at::Tensor tokens;     // int64 [T]; undefined for data without tokens
  at::Tensor positions;  // int64 [T], from 0 in every sample
  // [B+1] on the host: sample b is rows starts[b] .. starts[b+1]-1
  std::vector<std::int64_t> starts{0};
  // one per row of Model::features. Decoders: N = T, already shifted (row t is to predict
  // targets[t]); classifiers: N = B. The type says which loss is meant: int64 [N] one class
  // (ignored_target: not trained on); float32 [N, outputs] any of several labels, 0 or 1 each;
  // float32 [N] a value.
  at::Tensor targets;
  std::map<std::string, at::Tensor> columns;  // whatever else a dataset plugin hands over
  // what Model::hidden_after made of these samples in an earlier pass; undefined: it is computed
  at::Tensor hidden;
  std::int64_t hidden_parts = 0;  // after how many parts of the model
  // which model; another, such as a teacher, computes everything
  const Model* hidden_of = nullptr;
  // row numbers in the split; a row may give several samples (a preference gives two)
  std::vector<std::int64_t> ids;

  std::int64_t samples() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  std::int64_t length() const { return starts.back(); }
};

/// tokens, positions and starts of these samples laid end to end. Each is int32 or int64 [n_i].
Batch pack(const std::vector<at::Tensor>& tokens);

/// A decoder's targets for one sample, int64 [n]: row t is to predict tokens[t + 1] where mask[t +
/// 1] is 1 (no mask: everywhere); the last row predicts nothing. tokens int32 or int64 [n], mask
/// uint8 [n].
at::Tensor next_token_targets(const at::Tensor& tokens, const at::Tensor& mask = {});

}  // namespace attune
ATTUNE_API_END
