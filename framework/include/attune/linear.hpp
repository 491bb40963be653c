// Attune's linear layer, with support for deltas (LoRA, DoRA, IA3, adapters, ...).
#pragma once
#include <attune/api.hpp>
#include <attune/forward.hpp>
#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune::nn {

class Linear;

/// sum = keep * sum + scale * (a @ b), in place (BLAS beta and alpha). sum [m, n], a [m, k], b [k,
/// n]; a and b may be transposed views. Both have the dtype of sum, or are bfloat16 if sum is
/// float32. In that case products are accumulated in float32 (Micikevicius et al. 2017,
/// arXiv:1710.03740). With keep = 0 the old values of sum are ignored.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double scale = 1,
                 double keep = 1);
/// a @ b. The result is float32 if a and b are bfloat16.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

/// A trainable change to one linear layer. It is registered as a sub-module of that layer.
class Delta : public torch::nn::Module {
 public:
  /// Owner of the delta, if several runs share a base model: the delta acts only on that owner's
  /// samples (ForwardContext::shared_by).
  std::int64_t owner = 0;

  /// Replaces the layer's input x [..., in]. Default: returns x.
  virtual at::Tensor input(const at::Tensor& x) { return x; }
  /// Returns the layer's new output [..., out]. x: original input [..., in]. y: output of the layer
  /// and the preceding deltas [..., out]; may be float32 where x is bfloat16, as a small change
  /// would be lost in a y that is rounded. Default: returns y.
  virtual at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y,
                             ForwardContext& context);
  /// Computes the layer and the delta from x in one function, if that is cheaper than two. Called
  /// only if the layer is frozen and has no other delta. Default: returns an undefined tensor,
  /// which means that there is no fused form.
  virtual at::Tensor forward_fused(const Linear& base, const at::Tensor& x,
                                   ForwardContext& context);
  /// Recovers the output of the original layer from y, its current output. Override it if the delta
  /// also modified the layer's weight. Default: returns y.
  virtual at::Tensor base_output(const Linear& base, const at::Tensor& x, const at::Tensor& y);
  /// Replacement of some weight rows: ids int64 [k], values [k, in].
  struct Rows {
    at::Tensor ids;
    at::Tensor values;
  };
  /// For a delta that only replaces weight rows: returns them, so that a loss over many outputs can
  /// apply them directly. Default: absent.
  virtual std::optional<Rows> rows() const;
  /// Folds the delta into the layer's weight and bias, in place, so that inference gives the same
  /// output. Error if that is impossible.
  virtual void merge(Linear& base) const = 0;
};

/// A frozen weight [out, in] stored with fewer bits (quantised).
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  /// The dense weight [out, in], in the dtype of the layer's computation.
  virtual at::Tensor unpack() const = 0;
  /// Memory of the packed weight in bytes.
  virtual std::size_t bytes() const = 0;
  /// Calls use(tensor) for each tensor that holds the weight. It may replace the tensor by one with
  /// the same values, as when the ranks of a node share its memory. Default: none, and each rank
  /// holds its own.
  virtual void for_each_tensor(const std::function<void(at::Tensor&)>& use);
};

/// y = x @ weight^T + bias, followed by each delta in turn and the softcap. weight [out, in] and
/// bias [out] (may be undefined) are not initialised: they are loaded, or set by the creator of the
/// layer.
class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias);
  /// A tied projection: shares the tensor and registers no parameter.
  explicit Linear(at::Tensor shared_weight);
  /// x [..., in] -> [..., out], including the deltas that act in this pass.
  at::Tensor forward(const at::Tensor& x, ForwardContext& context);

  void add_delta(std::string name, std::shared_ptr<Delta> delta);
  const std::vector<std::shared_ptr<Delta>>& deltas() const { return deltas_; }
  /// Folds all deltas into weight and bias and removes them. Error if the weight is packed.
  void merge_deltas();

  /// Replaces the weight by a packed one. It is frozen, is no parameter, and is unpacked for each
  /// product.
  void pack(std::shared_ptr<PackedWeight> packed);
  const std::shared_ptr<PackedWeight>& packed() const { return packed_; }
  /// The weight [out, in]; unpacked if it is packed.
  at::Tensor dense_weight() const { return packed_ ? packed_->unpack() : weight; }
  /// dense_weight() in the dtype of the matrix products.
  at::Tensor operand() const;
  /// Keeps `rounded`, a copy of the frozen weight, as operand().
  void keep_operand(at::Tensor rounded) const;
  /// Whether neither weight nor bias is trainable.
  bool is_frozen() const;
  /// dtype and device of the weight.
  at::TensorOptions options() const { return packed_ ? packed_options_ : weight.options(); }

  std::int64_t in() const { return in_; }
  std::int64_t out() const { return out_; }

  at::Tensor weight;  // undefined while packed
  at::Tensor bias;
  // weight files hold [in, out] (GPT-2's Conv1D; fan_in_fan_out in PEFT); `weight` is [out, in] in
  // either case
  bool is_stored_transposed = false;
  bool rounds_operands = false;  // round float32 x and weight to bfloat16 for products
  // final output = softcap * tanh(output / softcap) (Gemma 2's logits); 0 disables it
  double softcap = 0;

 private:
  at::Tensor uncapped(const at::Tensor& x, ForwardContext& context);
  at::Tensor product_of(const at::Tensor& x) const;
  /// float32, of x in bfloat16.
  at::Tensor wide_product_of(const at::Tensor& x) const;

  std::vector<std::shared_ptr<Delta>> deltas_;
  std::shared_ptr<PackedWeight> packed_;
  mutable at::Tensor rounded_;  // cached bfloat16 copy of a frozen weight
  mutable std::int64_t rounded_version_ = 0;
  at::TensorOptions packed_options_;
  std::int64_t in_;
  std::int64_t out_;
};

/// All nn::Linear layers below root with their dotted names, in registration order.
std::vector<std::pair<std::string, std::shared_ptr<Linear>>> linears(torch::nn::Module& root);

}  // namespace attune::nn
ATTUNE_API_END
