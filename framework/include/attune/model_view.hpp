// What a strategy changes of a model. Through its view it adds, and says what is trained; what
// others do to the same base is theirs.
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
  /// owner: whose changes these are, where several runs share a base (ForwardContext::shared_by).
  explicit ModelView(Model& model, std::int64_t owner = 0) : model_(model), owner_(owner) {}

  Model& model() const { return model_; }
  std::int64_t owner() const { return owner_; }

  /// Adds a change to a Linear, Conv2d or Embedding, and trains those of its parameters that
  /// require gradients. It is registered with the layer by its name; of another owner than 0, as
  /// "name@owner".
  template <class Layer, class Change>
  void add_delta(Layer& layer, const std::string& name, const std::shared_ptr<Change>& delta) {
    delta->owner = owner_;
    layer.add_delta(own_name(name), delta);
    train_added(*delta);
  }
  /// Adds trained tokens before every sample. Error when the model has some already.
  template <class Tokens>
  void add_virtual_tokens(const std::shared_ptr<Tokens>& tokens) {
    add_tokens(tokens, tokens);
  }

  /// A parameter of the model, or all of a module's and of those in it. A model comes frozen:
  /// nothing else is trained.
  void train(const at::Tensor& parameter);
  void train(const torch::nn::Module& module);
  /// What is trained through this view, with dotted names in the order of registration; a shared
  /// tensor once.
  std::vector<NamedTensor> trained() const;

 private:
  std::string own_name(const std::string& name) const;
  void train_added(const torch::nn::Module& module);
  void add_tokens(std::shared_ptr<VirtualTokens> tokens, std::shared_ptr<torch::nn::Module> module);

  Model& model_;
  std::int64_t owner_;
  std::unordered_set<const void*> trained_;  // TensorImpls
};

/// Of a model that was just made: nothing of it is trained.
void freeze(Model& model);

}  // namespace attune
ATTUNE_API_END
