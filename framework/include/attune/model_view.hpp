// A strategy's interface to the model. Through its view a strategy adds deltas and selects
// trainable parameters, independently of other strategies or runs on the same base model.
#pragma once
#include <attune/api.hpp>
#include <attune/model.hpp>

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

class ModelView {
 public:
  /// owner: the run that owns the changes, if several share a base (ForwardContext::shared_by).
  explicit ModelView(Model& model, std::int64_t owner = 0) : model_(model), owner_(owner) {}

  Model& model() const { return model_; }
  std::int64_t owner() const { return owner_; }

  /// Adds a delta to a Linear, Conv2d or Embedding, and trains its parameters that require
  /// gradients. It is registered as a sub-module of the layer under `name`, or "name@owner" if the
  /// owner is not 0.
  template <class Layer, class Change>
  void add_delta(Layer& layer, const std::string& name, const std::shared_ptr<Change>& delta) {
    delta->owner = owner_;
    layer.add_delta(own_name(name), delta);
    train_added(*delta);
  }
  /// Adds trainable tokens before every sample. Error if the model already has some.
  template <class Tokens>
  void add_virtual_tokens(const std::shared_ptr<Tokens>& tokens) {
    add_tokens(tokens, tokens);
  }

  /// Makes a parameter, or all parameters of a module and its sub-modules, trainable. All other
  /// parameters of a model are frozen.
  void train(const at::Tensor& parameter);
  void train(const torch::nn::Module& module);
  /// Parameters that are trainable through this view, with dotted names in registration order. A
  /// shared tensor is listed once.
  std::vector<NamedTensor> trained() const;

 private:
  std::string own_name(const std::string& name) const;
  void train_added(const torch::nn::Module& module);
  void add_tokens(std::shared_ptr<VirtualTokens> tokens, std::shared_ptr<torch::nn::Module> module);

  Model& model_;
  std::int64_t owner_;
  std::unordered_set<const void*> trained_;  // TensorImpls
};

}  // namespace attune
ATTUNE_API_END
