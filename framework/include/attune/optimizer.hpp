// An optimizer turns gradients into parameter updates. It declares the state tensors that it needs
// per parameter; the run allocates, saves and restores them. An optimizer object must hold no other
// state that affects a resumed run.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// Metadata of a parameter, sufficient to plan an optimizer's memory.
struct ParameterSpec {
  std::string name;  // dotted, as in Model::module()
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
  // belongs to one of the model's blocks; false for embeddings, heads and virtual tokens
  bool in_block = false;
};

/// A state tensor for one parameter. It is initialised to zero and saved as "<parameter>.<name>";
/// the name "master" is Attune's.
/// It is on the parameter's device; without dimensions, such as a count of updates, it is on the
/// host, where reading it waits for no device.
struct StateSpec {
  std::string name;
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
};

/// Input of an update for one parameter.
struct ParameterUpdate {
  ParameterSpec spec;
  at::Tensor parameter;  // updated in place
  // same memory layout as the parameter; may be overwritten; zeros if no loss depends on it
  at::Tensor gradient;
  std::vector<at::Tensor> state;  // in the order of Optimizer::state; updated in place
};

/// Factors common to all parameters of one update.
struct UpdateRates {
  double learning_rate = 0;  // schedule's value for this step, times the group's factor
  double weight_decay = 0;   // train.weight_decay, times the group's factor
  // true gradient = gradient_scale * ParameterUpdate::gradient (mean over targets, and clipping)
  double gradient_scale = 1;
};

/// Interface of optimizer plugins. Results must depend only on the arguments and the options, so
/// that they are the same on every rank and after a resume.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Declares the state tensors of a parameter. The result must depend only on its name, sizes and
  /// dtype.
  virtual std::vector<StateSpec> state(const ParameterSpec& parameter) const = 0;
  /// Whether each element is updated only from its own gradient, the state elements at the same
  /// position, and per-parameter state that does not depend on gradients. If so, a rank may hold
  /// and update part of a parameter, which `state` and `update` see as a 1-D parameter. Default:
  /// false; whole parameters are then assigned to ranks.
  virtual bool is_elementwise() const { return false; }
  /// Updates the parameters of one group. Autograd is disabled. Parameters that a strategy froze
  /// for this step are not included.
  virtual void update(std::vector<ParameterUpdate>& parameters, const UpdateRates& rates) = 0;
};

/// Scales the gradients in place by rates.gradient_scale and returns them.
std::vector<at::Tensor> scaled_gradients(const std::vector<ParameterUpdate>& parameters,
                                         const UpdateRates& rates);

}  // namespace attune
ATTUNE_API_END
