// The framework's own linear layer, with a slot for deltas (LoRA, DoRA, IA3, adapters...).
#pragma once
#include <attune/api.hpp>
#include <attune/forward.hpp>
#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune::nn {

class Linear;

/// keep sum + scale a b, written into sum [m, n]; a [m, k], b [k, n], either maybe a transposed
/// view. Both have the dtype of sum, or bfloat16 where sum is float32: then what they give is added
/// up in float32 (Micikevicius et al. 2017, arXiv:1710.03740). With keep = 0 what is in sum does
/// not matter.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double scale = 1,
                 double keep = 1);
/// a b; float32 when a and b are bfloat16.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

/// A trained change to one linear layer. Its parameters are registered as those of a sub-module of
/// that layer.
class Delta : public torch::nn::Module {
 public:
  /// Whose change it is, where runs share a base: it acts on that one's samples
  /// (ForwardContext::shared_by).
  std::int64_t owner = 0;

  /// What the layer is given instead of its input x [..., in]. Default: x.
  virtual at::Tensor input(const at::Tensor& x) { return x; }
  /// x: the layer's own input [..., in]; y: its output so far [..., out]. Returns the new output.
  /// Default: y.
  virtual at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y,
                             ForwardContext& context);
  /// The layer's output with the change, from x, where one function for both is cheaper than one
  /// after the other. Called when the layer is frozen and has no other delta. Default: undefined,
  /// and the two are computed one after the other.
  virtual at::Tensor forward_fused(const Linear& base, const at::Tensor& x,
                                   ForwardContext& context);
  /// The output of the layer as it was before the change, from y, its output now. Default: y, which
  /// is right unless the weight itself was changed with the delta.
  virtual at::Tensor base_output(const Linear& base, const at::Tensor& x, const at::Tensor& y);
  /// Some rows of the weight, int64 [k], and what stands in their place [k, in].
  struct Rows {
    at::Tensor ids;
    at::Tensor values;
  };
  /// For a change that only puts other rows in the place of some: a loss over many outputs does it
  /// at once. Default: absent.
  virtual std::optional<Rows> rows() const;
  /// Changes the layer's weight and bias, in place, so that they give the same output in inference.
  /// Error where that cannot be.
  virtual void merge(Linear& base) const = 0;
};

/// A frozen weight [out, in] held in fewer bits.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  /// In the dtype that the layer computes in.
  virtual at::Tensor unpack() const = 0;
  virtual std::size_t bytes() const = 0;
};

/// y = x weight^T + bias, then each delta in turn, then the softcap. weight [out, in] and bias
/// [out] (maybe undefined) are not initialised: they are loaded, or set by whoever makes the layer.
class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias);
  /// For a tied projection: shares the tensor, registers no parameter of its own.
  explicit Linear(at::Tensor shared_weight);
  /// x [..., in] -> [..., out], with those deltas that act in this pass.
  at::Tensor forward(const at::Tensor& x, ForwardContext& context);

  void add_delta(std::string name, std::shared_ptr<Delta> delta);
  const std::vector<std::shared_ptr<Delta>>& deltas() const { return deltas_; }
  /// Folds every delta into weight and bias and removes them. Error when the weight is packed.
  void merge_deltas();

  /// From now on the weight is held packed: no parameter, frozen, unpacked for each product.
  void pack(std::shared_ptr<PackedWeight> packed);
  const std::shared_ptr<PackedWeight>& packed() const { return packed_; }
  /// [out, in], packed or not.
  at::Tensor dense_weight() const { return packed_ ? packed_->unpack() : weight; }
  /// dense_weight as products take it.
  at::Tensor operand() const;
  /// Neither weight nor bias is trained.
  bool is_frozen() const;
  /// dtype and device of the weight.
  at::TensorOptions options() const { return packed_ ? packed_options_ : weight.options(); }

  std::int64_t in() const { return in_; }
  std::int64_t out() const { return out_; }

  at::Tensor weight;  // undefined while packed
  at::Tensor bias;
  // files hold the weight as [in, out] (GPT-2's Conv1D; fan_in_fan_out in PEFT); here it is [out,
  // in] all the same
  bool is_stored_transposed = false;
  bool rounds_operands = false;  // products round x and weight, which are float32, to bfloat16
  // the output becomes softcap tanh(output / softcap) in the end (Gemma 2's logits); 0: it stays as
  // it is
  double softcap = 0;

 private:
  at::Tensor uncapped(const at::Tensor& x, ForwardContext& context);
  at::Tensor product_of(const at::Tensor& x) const;

  std::vector<std::shared_ptr<Delta>> deltas_;
  std::shared_ptr<PackedWeight> packed_;
  mutable at::Tensor rounded_;  // the weight, as long as it is frozen
  mutable std::int64_t rounded_version_ = 0;
  at::TensorOptions packed_options_;
  std::int64_t in_;
  std::int64_t out_;
};

/// Every nn::Linear below root with its dotted name, in registration order.
std::vector<std::pair<std::string, std::shared_ptr<Linear>>> linears(torch::nn::Module& root);

}  // namespace attune::nn
ATTUNE_API_END
