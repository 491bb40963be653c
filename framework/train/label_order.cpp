#include "train/label_order.hpp"

#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace attune::train {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char letter) {
    return static_cast<char>(std::tolower(letter));
  });
  return text;
}

/// Outputs by their names in lower case; nothing where two share a name.
std::map<std::string, std::int64_t> outputs_of(const nlohmann::json& config) {
  std::map<std::string, std::int64_t> outputs;
  const auto names = config.find("id2label");
  if (names == config.end() || !names->is_object()) return outputs;
  for (const auto& [id, name] : names->items()) {
    const bool is_number = !id.empty() && std::ranges::all_of(id, [](unsigned char letter) {
      return std::isdigit(letter);
    }) && id.size() < 10;
    if (!is_number || !name.is_string() ||
        !outputs.emplace(lower(name.get<std::string>()), std::stoll(id)).second)
      return {};
  }
  return outputs;
}

at::Tensor ordered(const at::Tensor& rows, const LabelOrder& order) {
  return rows.detach().index_select(0, torch::tensor(order, at::kLong).to(rows.device()));
}

std::string head_name(Model& model) {
  for (const auto& [name, linear] : nn::linears(model.module()))
    if (linear.get() == &model.projection()) return name;
  return "";
}

}  // namespace

LabelOrder label_order(const nlohmann::json& config, const std::vector<std::string>& labels) {
  const auto outputs = outputs_of(config);
  if (outputs.size() != labels.size()) return {};
  LabelOrder order;
  for (const auto& label : labels) {
    const auto found = outputs.find(lower(label));
    if (found == outputs.end() || found->second >= std::ssize(labels)) return {};
    order.push_back(found->second);
  }
  return std::ranges::is_sorted(order) ? LabelOrder() : order;
}

void order_head(Model& model, const LabelOrder& order) {
  auto& head = model.projection();
  if (order.empty() || head.out() != std::ssize(order)) return;
  const torch::NoGradGuard no_grad;
  for (const auto& rows : {head.weight, head.bias})
    if (rows.defined()) at::Tensor(rows).copy_(ordered(rows, order));
}

void order_head(Adapter& adapter, Model& model, const LabelOrder& order) {
  const auto head = head_name(model);
  if (order.empty() || head.empty()) return;
  for (auto& [name, tensor] : adapter.tensors) {
    const bool is_head =
        name.ends_with("." + head + ".weight") || name.ends_with("." + head + ".bias");
    if (is_head && tensor.size(0) == std::ssize(order)) tensor = ordered(tensor, order);
  }
}

LabelOrder inverse(const LabelOrder& order) {
  LabelOrder back(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    back[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
  return back;
}

}  // namespace attune::train
