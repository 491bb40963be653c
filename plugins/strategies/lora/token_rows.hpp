// Single rows of the token embedding and of the head, trained beside the frozen others (PEFT's
// trainable_token_indices).
#pragma once
#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace lora {

/// Error with the option's name when an id has no row, or comes twice.
inline at::Tensor row_ids(const std::vector<std::int64_t>& ids, std::int64_t rows,
                          const std::string& option) {
  std::set<std::int64_t> seen;
  for (const auto id : ids) {
    if (id < 0 || id >= rows)
      attune::fail("{} contains token {}, but the model has tokens 0 to {}", option, id, rows - 1);
    if (!seen.insert(id).second) attune::fail("{} contains token {} twice", option, id);
  }
  return torch::tensor(ids, at::kLong);
}

/// The rows `ids` of a weight [rows, width], in float32 at least, as they are at the start.
inline at::Tensor rows_of(const at::Tensor& weight, const at::Tensor& ids) {
  const auto type = at::promote_types(weight.scalar_type(), at::kFloat);
  return weight.detach().index_select(0, ids.to(weight.device())).to(type);
}

/// Rows of an embedding.
class EmbeddingRows final : public attune::nn::EmbeddingDelta {
 public:
  EmbeddingRows(const attune::nn::Embedding& base, const at::Tensor& ids)
      : ids(ids.to(base.weight.device())) {
    rows = register_parameter("rows", rows_of(base.weight, ids));
    const auto none = ids.size(0);
    place_ = at::full({base.weight.size(0)}, none, this->ids.options());
    place_.index_copy_(0, this->ids, at::arange(none, this->ids.options()));
  }

  /// Without the rows' index_copy into the whole weight, which would be copied for every batch.
  at::Tensor forward(const attune::nn::Embedding&, const at::Tensor& tokens, const at::Tensor& y,
                     attune::ForwardContext&) override {
    const at::Tensor place = place_.index_select(0, tokens.flatten()).view_as(tokens);
    const at::Tensor ours = attune::nn::rounded(rows, y.scalar_type());
    const at::Tensor padded = at::cat({ours, at::zeros({1, ours.size(1)}, ours.options())});
    return at::where((place < ids.size(0)).unsqueeze(-1), at::embedding(padded, place), y);
  }

  void merge(attune::nn::Embedding& base) const override {
    base.weight.index_copy_(0, ids, rows.to(base.weight.scalar_type()));
  }

  // int64 [k]; [k, width]
  at::Tensor ids;
  at::Tensor rows;

 private:
  at::Tensor place_;  // int64 [tokens]: the row's place in rows; k for all others
};

/// Rows of the projection to tokens: its own, or those of the embedding that it is tied to.
class HeadRows final : public attune::nn::Delta {
 public:
  HeadRows(const attune::nn::Linear& base, const at::Tensor& ids)
      : ids(ids.to(base.options().device())) {
    values = register_parameter("rows", rows_of(base.dense_weight(), ids));
  }
  explicit HeadRows(const EmbeddingRows& tied) : ids(tied.ids), values(tied.rows), is_tied_(true) {}

  at::Tensor forward(const attune::nn::Linear& base, const at::Tensor& x, const at::Tensor& y,
                     attune::ForwardContext&) override {
    at::Tensor changed = at::linear(x, attune::nn::rounded(values, x.scalar_type()));
    if (base.bias.defined()) changed = changed + base.bias.index_select(0, ids);
    return y.index_copy(-1, ids, changed.to(y.scalar_type()));
  }
  std::optional<Rows> rows() const override { return Rows{ids, values}; }

  void merge(attune::nn::Linear& base) const override {
    // else the embedding has done so
    if (!is_tied_) base.weight.index_copy_(0, ids, values.to(base.weight.scalar_type()));
  }

  at::Tensor ids;
  at::Tensor values;

 private:
  bool is_tied_ = false;
};

}  // namespace lora
