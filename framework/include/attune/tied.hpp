// Tied projections, which share the weight of the token embedding.
#pragma once
#include <attune/api.hpp>
#include <attune/model.hpp>

#include <optional>
#include <string>

ATTUNE_API_BEGIN
namespace attune::nn {

/// Whether the weights agree with a config.json that declares the projection as tied. As in
/// transformers, they do not if they contain both tensors with different values. Collective, as is
/// every read.
bool is_tied(WeightSource& weights, const std::string& embedding, const std::string& head);

/// Dotted names of an embedding and of the head that uses its weight.
struct TiedHead {
  std::string embedding;
  std::string head;
};
/// The tied head of a model. Absent if the projection has its own weight.
std::optional<TiedHead> tied_head(Model& model);

}  // namespace attune::nn
ATTUNE_API_END
