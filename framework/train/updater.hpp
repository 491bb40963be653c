// What a run trains, in groups, with its optimizer and the tensors that the optimizer keeps.
#pragma once
#include <attune/optimizer.hpp>
#include <attune/strategy.hpp>

#include <memory>

#include "parallel/shard.hpp"
#include "train/session.hpp"

namespace attune::train {

/// The shapes of what the model trains, in the order of trainable().
std::vector<ParameterSpec> trained_specs(Model& model);

/// What an optimizer keeps for such parameters. Nothing is made.
std::size_t state_bytes(const Optimizer& optimizer, const std::vector<ParameterSpec>& parameters);

/// What one gradient is multiplied by so that all of them together, whose norm is then `norm`, have
/// no larger norm than `clip` (0: any).
double clipped(double scale, double norm, double clip);

class Updater {
 public:
  /// `block_prefixes`: what the names of parameters in the model's blocks start with. `sharing`:
  /// the ranks that share out what is updated, each keeping the optimizer's state of its part alone
  /// (Rajbhandari et al. 2020, ZeRO stage 1, arXiv:1910.02054); by default this process alone. They
  /// hold the same parameters and gradients.
  Updater(std::shared_ptr<Optimizer> optimizer, std::vector<ParameterGroup> groups,
          double weight_decay, const std::vector<std::string>& block_prefixes, Comm sharing = {});

  /// The .grad of what this rank updates; zeros where no loss depends on it.
  std::vector<parallel::Shard> gradients() const;
  /// The norm of all gradients together; the same bits on any number of threads, and for any
  /// sharing of tensors that lie in host memory. Collective.
  double norm_of(const std::vector<parallel::Shard>& gradients) const;
  /// One update from these gradients, each times gradient_scale, after which every rank has the new
  /// parameters. Collective.
  void step(const std::vector<parallel::Shard>& gradients, double learning_rate,
            double gradient_scale);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// Live tensors to save, and to restore in place before the first update: "<parameter>.exp_avg"
  /// and what else the optimizer keeps of this rank's part.
  std::vector<parallel::Shard> state() const;
  /// Whether other ranks have other parts of the state.
  bool is_shared() const { return sharing_.size() > 1; }

 private:
  /// What this rank updates of one parameter.
  struct Slot {
    ParameterSpec spec;  // of the part
    std::size_t parameter;
    parallel::Shard part;
    std::vector<parallel::Shard> state;
  };
  struct Group {
    std::vector<Slot> slots;
    double learning_rate_scale;
    double weight_decay;
  };
  Slot make_slot(const parallel::ShardPlan::Range& range,
                 const std::vector<std::string>& block_prefixes) const;

  std::shared_ptr<Optimizer> optimizer_;
  Comm sharing_;
  std::vector<NamedTensor> parameters_;
  parallel::ShardPlan plan_;
  std::vector<Group> groups_;
};

/// What the names of the parameters in each of its blocks start with.
std::vector<std::string> block_prefixes(const Model& model);

/// The run's optimizer over what its strategies train.
Updater make_updater(const Session& session);

}  // namespace attune::train
