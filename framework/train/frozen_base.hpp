// The frozen part of a run's model, which the ranks of a node hold once. Decision record:
// docs/design/0036-one-base-per-node.md.
#pragma once
#include <attune/model.hpp>

#include <map>
#include <string>

#include "parallel/node_memory.hpp"
#include "parallel/tensors.hpp"

namespace attune::train {

/// The parameters of a model, by what tells whether they were written to.
class BaseValues {
 public:
  explicit BaseValues(Model& model);
  /// Whether every one of them is still there, and as it was. Others may have come.
  bool are_those_of(Model& model) const;
  /// Whether a parameter of this name was there, and has not changed.
  bool are_those_of(const std::string& name, const at::Tensor& parameter) const;

 private:
  std::map<std::string, parallel::Version> versions_;
};

/// After the strategies have prepared a model whose weights were read into `memory`: what they have
/// made or changed that stays frozen is placed there as well. base: before they did. Collective
/// over the node.
void hold_frozen_once(Model& model, const BaseValues& base, parallel::NodeMemory& memory);
/// What is trained gets memory of its own, on each rank.
void hold_trained_apart(Model& model);

/// Bytes of the model's weights that the ranks of the node hold once.
std::size_t bytes_held_once(Model& model);
/// The same for a model without values, which hold_frozen_once() has not seen: of its frozen
/// weights.
std::size_t bytes_to_hold_once(Model& model);

}  // namespace attune::train
