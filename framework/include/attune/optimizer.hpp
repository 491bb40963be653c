// An optimizer turns gradients into an update of the parameters. It says which tensors it keeps for
// a parameter; the run makes, saves and restores them, so an optimizer itself holds nothing that a
// resumed run would miss.
#pragma once
#include <attune/api.hpp>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// A parameter without its values: enough to plan an optimizer's memory.
struct ParameterSpec {
  std::string name;  // dotted, as in Model::module()
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
  // of one of the model's blocks; embeddings, heads and virtual tokens are outside
  bool in_block = false;
};

/// A tensor that an optimizer keeps for one parameter. It starts as zeros on the parameter's device
/// and is saved as "<parameter>.<name>".
struct StateSpec {
  std::string name;
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
};

/// One parameter in one update.
struct ParameterUpdate {
  ParameterSpec spec;
  at::Tensor parameter;  // to be changed in place
  // in memory as the parameter; may be overwritten; zeros where no loss depends on it
  at::Tensor gradient;
  std::vector<at::Tensor> state;  // in the order of Optimizer::state, to be changed in place
};

/// What the parameters of one update share.
struct UpdateRates {
  double learning_rate = 0;  // of this step: the schedule's, times the parameter group's factor
  double weight_decay = 0;   // train.weight_decay, times the parameter group's factor
  // the gradient is gradient_scale * ParameterUpdate::gradient: mean over targets, and clipping
  double gradient_scale = 1;
};

/// The result may depend on the arguments and the options alone: the same on every rank, and after
/// a resume.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// The tensors that are kept for a parameter: from its name, sizes and dtype alone, the same at
  /// every call.
  virtual std::vector<StateSpec> state(const ParameterSpec& parameter) const = 0;
  /// Whether each number of a parameter is updated from its own gradient and the numbers at the
  /// same place of the state alone (and of what is kept for the parameter as a whole, of gradients
  /// nothing). Then a rank may hold and update a piece of a parameter: `state` and `update` see it
  /// as a parameter of one dimension. Default: false; whole parameters are shared out instead.
  virtual bool is_elementwise() const { return false; }
  /// One update of the parameters of a group, without autograd. Parameters that a strategy has
  /// frozen for this step are left out.
  virtual void update(std::vector<ParameterUpdate>& parameters, const UpdateRates& rates) = 0;
};

/// The gradients, scaled in place.
std::vector<at::Tensor> scaled_gradients(const std::vector<ParameterUpdate>& parameters,
                                         const UpdateRates& rates);

}  // namespace attune
ATTUNE_API_END
