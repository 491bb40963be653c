// The trainable parameters of a run in groups, with the optimizer and its state.
#pragma once
#include <attune/optimizer.hpp>
#include <attune/strategy.hpp>

#include <memory>
#include <optional>

#include "device/readings.hpp"
#include "parallel/node_parameters.hpp"
#include "parallel/shard.hpp"
#include "parallel/sharing.hpp"
#include "train/session.hpp"

namespace attune::train {

/// The part of a master's name in checkpoints after "<parameter>.".
inline constexpr const char* master_name = "master";

/// Size in bytes of the optimizer's state for such parameters. Allocates nothing.
std::size_t state_bytes(const Optimizer& optimizer, const std::vector<ParameterSpec>& parameters);
/// The same for the model's trainable parameters, with their masters.
std::size_t state_bytes(const Optimizer& optimizer, Model& model);

/// Bytes of what ranks share out.
struct ShardBytes {
  std::size_t state = 0;      // of the optimizer, with masters
  std::size_t gradients = 0;  // sums
};
/// The most that one of the plan's ranks holds. parameters: of the plan.
ShardBytes shard_bytes(const Optimizer& optimizer, const std::vector<NamedTensor>& parameters,
                       const std::vector<std::string>& block_prefixes,
                       const parallel::ShardPlan& plan);

/// Scale of the gradients after clipping: `scale`, reduced if the total gradient norm `norm`
/// exceeds `clip`. clip = 0 disables clipping.
double clipped(double scale, double norm, double clip);

/// A parameter with gradients in float32 (parallel/wide_gradients.hpp) has a master: its values in
/// float32, to which updates are applied, and which the parameter rounds. Small updates add up
/// there (Micikevicius et al. 2018, Mixed Precision Training, section 3.1, arXiv:1710.03740). To
/// the optimizer the master is the parameter.
class Updater {
 public:
  /// Where the optimizer's state is, and its update is computed. host: of parameters on a device,
  /// whose parts and gradients travel there and back.
  enum class StateOn { same_device, host };

  /// parameters: all of the groups, in the model's order. block_prefixes: name prefixes of the
  /// parameters in the model's blocks. sharing: ranks with the same parameters, over which the
  /// update is sharded; each keeps only its part of the optimizer's state (Rajbhandari et al. 2020,
  /// ZeRO stage 1, arXiv:1910.02054). Default: this process alone.
  Updater(std::shared_ptr<Optimizer> optimizer, std::vector<NamedTensor> parameters,
          const std::vector<ParameterGroup>& groups, double weight_decay,
          const std::vector<std::string>& block_prefixes, parallel::RankGroup sharing = {},
          StateOn state_on = StateOn::same_device);
  /// The same with the parameters in the order of the groups, for this process alone.
  Updater(std::shared_ptr<Optimizer> optimizer, const std::vector<ParameterGroup>& groups,
          double weight_decay, const std::vector<std::string>& block_prefixes,
          StateOn state_on = StateOn::same_device);

  /// The .grad shards that this rank updates; zeros for parameters on which no loss depends.
  std::vector<parallel::Shard> gradients() const;
  /// Gives every parameter its whole .grad, from all ranks' shards. Collective.
  void spread(const std::vector<parallel::Shard>& gradients);
  /// Which elements each rank updates.
  const parallel::ShardPlan& plan() const { return plan_; }
  /// Norm of all gradients together. Bitwise the same for any number of threads, and for any
  /// sharding of tensors in host memory. Collective.
  double norm_of(const std::vector<parallel::Shard>& gradients) const;

  /// The same in two parts: what is on a device is read together with other numbers.
  struct Squares {
    // sums of squares, by tensor and stretch; empty for a tensor on a device
    std::vector<std::vector<double>> on_host;
    // of the others: the tensor, and the place of its norm in the readings
    std::vector<std::pair<std::size_t, std::size_t>> norms;
  };
  static Squares start_norm(const std::vector<parallel::Shard>& gradients,
                            device::Readings& readings);
  /// After the readings are read. Collective.
  double finish_norm(Squares squares, const device::Readings& readings) const;
  /// From now on the ranks of a node hold the parameters once. node: those of this rank's node.
  /// Returns why this node's memory cannot be shared; then its ranks keep their own. Collective.
  std::string hold_once_per_node(const Comm& node);
  /// After all ranks have given the parameters the same new values, as those of a checkpoint.
  void accept_values();
  /// Error if something other than an update changed what the ranks of a node hold once.
  void check_unchanged() const;
  /// Updates the parameters from these gradients times gradient_scale, and distributes them to all
  /// ranks. Collective.
  void step(const std::vector<parallel::Shard>& gradients, double learning_rate,
            double gradient_scale);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Live optimizer state of this rank's part, "<parameter>.exp_avg" and so on, and the masters,
  /// "<parameter>.master". Save it, or restore it in place before the first update.
  std::vector<parallel::Shard> state() const;
  /// Whether the state is sharded over several ranks.
  bool is_shared() const { return sharing_.comm.size() > 1; }

 private:
  /// Copies in pinned memory.
  struct OnHost {
    at::Tensor part;
    at::Tensor gradient;
  };
  /// The part of one parameter that this rank updates.
  struct Slot {
    ParameterSpec spec;  // of the part, as the optimizer sees it
    parallel::ShardPlan::Range range;
    std::size_t group;
    std::optional<OnHost> on_host;
    std::optional<parallel::Shard> master;  // of the part
    std::vector<parallel::Shard> state;
  };
  struct Group {
    double learning_rate_scale;
    double weight_decay;
  };
  Slot make_slot(const parallel::ShardPlan::Range& range, std::size_t group,
                 const std::vector<std::string>& block_prefixes) const;
  /// The part itself, where the parameter is now.
  parallel::Shard part_of(const parallel::ShardPlan::Range& range) const;
  /// What the optimizer sees of it and its gradient: themselves, or their copies on the host.
  void bring(const Slot& slot, const parallel::Shard& gradient) const;
  void wait_for_host() const;
  parallel::Shard updated_part(const Slot& slot) const;
  void take_back(const Slot& slot) const;
  bool is_frozen(const Slot& slot) const;
  bool has_stretches(std::size_t parameter) const;

  std::shared_ptr<Optimizer> optimizer_;
  StateOn state_on_;
  parallel::RankGroup sharing_;
  std::vector<NamedTensor> parameters_;
  parallel::ShardPlan plan_;
  std::vector<Group> groups_;
  std::vector<Slot> slots_;  // in the order of the plan's ranges
  std::unique_ptr<parallel::NodeParameters> memory_;
};

/// Name prefixes of the parameters in each of the model's blocks.
std::vector<std::string> block_prefixes(const Model& model);

/// How so many ranks share out what training these parameters holds.
parallel::ShardPlan shard_plan(const Optimizer& optimizer,
                               const std::vector<NamedTensor>& parameters, int ranks);

/// Where the run's optimizer has its state.
Updater::StateOn state_on(const Session& session);

/// An Updater with the run's optimizer for all parameters that its strategies train.
Updater make_updater(const Session& session, const parallel::RankGroup& sharing = {});

}  // namespace attune::train
