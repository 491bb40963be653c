// Projections that share the weight of the token embedding.
#pragma once
#include <attune/api.hpp>
#include <attune/model.hpp>

#include <optional>
#include <string>

ATTUNE_API_BEGIN
namespace attune::nn {

/// Whether a decoder that is tied by its config.json is tied by its weights, too. As in
/// transformers it is not where they hold tensors of both names with different values. Collective,
/// as every read.
bool is_tied(WeightSource& weights, const std::string& embedding, const std::string& head);

/// The dotted names of two modules, of which the second has no weight of its own.
struct TiedHead {
  std::string embedding;
  std::string head;
};
/// Absent for a model whose projection has a weight of its own.
std::optional<TiedHead> tied_head(Model& model);

}  // namespace attune::nn
ATTUNE_API_END
