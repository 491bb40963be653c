#include <attune/nn.hpp>
#include <attune/tied.hpp>
#include <torch/torch.h>

namespace attune::nn {

bool is_tied(WeightSource& weights, const std::string& embedding, const std::string& head) {
  if (!weights.contains(embedding) || !weights.contains(head)) return true;
  const at::Tensor rows = weights.read(embedding);
  const at::Tensor own = weights.read(head);
  return rows.sizes() != own.sizes() || at::equal(rows, own.to(rows.scalar_type()));
}

std::optional<TiedHead> tied_head(Model& model) {
  TiedHead tied;
  for (const auto& [name, linear] : linears(model.module()))
    if (linear.get() == &model.projection()) tied.head = name;
  constexpr std::string_view weight = ".weight";
  for (const auto& parameter : model.module().named_parameters()) {
    const auto& name = parameter.key();
    const bool is_shared =
        parameter.value().is_same(model.projection().weight) && name.ends_with(weight);
    if (is_shared) tied.embedding = name.substr(0, name.size() - weight.size());
  }
  if (tied.head.empty() || tied.embedding.empty() || tied.head == tied.embedding)
    return std::nullopt;
  return tied;
}

}  // namespace attune::nn
