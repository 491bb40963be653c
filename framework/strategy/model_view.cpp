#include <attune/adapter.hpp>
#include <attune/model_view.hpp>
#include <attune/registry.hpp>
#include <torch/torch.h>

#include "parallel/wide_gradients.hpp"

namespace attune {

void ModelView::train(const at::Tensor& parameter) {
  parameter.set_requires_grad(true);
  parallel::widen_gradient(parameter);
  trained_.insert(parameter.unsafeGetTensorImpl());
}

void ModelView::train(const torch::nn::Module& module) {
  for (const auto& parameter : module.parameters()) train(parameter);
}

void ModelView::train_added(const torch::nn::Module& module) {
  for (const auto& parameter : module.parameters())
    if (parameter.requires_grad()) train(parameter);
}

std::vector<NamedTensor> ModelView::trained() const {
  std::vector<NamedTensor> found;
  auto left = trained_;
  for (const auto& parameter : model_.module().named_parameters())
    if (left.erase(parameter.value().unsafeGetTensorImpl()) > 0)
      found.emplace_back(parameter.key(), parameter.value());
  return found;
}

std::string ModelView::own_name(const std::string& name) const {
  return owner_ == 0 ? name : fmt::format("{}@{}", name, owner_);
}

void ModelView::add_tokens(std::shared_ptr<VirtualTokens> tokens,
                           std::shared_ptr<torch::nn::Module> module) {
  model_.set_virtual_tokens(std::move(tokens));
  train_added(*model_.module().register_module(nn::virtual_tokens_name, std::move(module)));
}

void freeze(Model& model) {
  for (const auto& parameter : model.module().parameters()) parameter.set_requires_grad(false);
}

}  // namespace attune
