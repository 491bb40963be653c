#include "parallel/node_parameters.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "parallel/node_memory.hpp"

namespace attune::parallel {

NodeParameters::NodeParameters(NamedTensors parameters, const Comm& copy, const Comm& node)
    : parameters_(std::move(parameters)), copy_(copy), node_(node) {
  place();
  choose_exchange();
  accept();
}

void NodeParameters::place() {
  std::vector<at::Tensor> values;
  for (const auto& [name, parameter] : parameters_) values.push_back(parameter.detach());
  NodeMemory memory(node_);
  const auto placed = memory.place_open(values);
  for (std::size_t i = 0; i < placed.size(); ++i)
    at::Tensor(parameters_[i].second).set_data(placed[i]);
  obstacle_ = memory.obstacle();
}

/// Ranks of nodes that hold parameters once, and as many on each: those with the same place on
/// their nodes. Otherwise all ranks of the copy.
void NodeParameters::choose_exchange() {
  const std::int64_t ranks = node_.size();
  const bool is_shared = copy_.max(std::int64_t{!obstacle_.empty()}) == 0;
  const bool is_table = copy_.max(ranks) == -copy_.max(-ranks);
  const auto group = is_shared && is_table ? copy_.split(node_.rank()) : copy_;
  exchange_ = {group, group.size() > 1 ? make_process_group(group) : nullptr};
  for (const auto& rank : group.gather(std::to_string(copy_.rank())))
    members_.push_back(std::stoi(rank));
}

void NodeParameters::accept() {
  versions_.clear();
  for (const auto& [name, parameter] : parameters_) versions_.push_back(version_of(parameter));
}

void NodeParameters::check_unchanged() const {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    if (version_of(parameters_[i].second) != versions_[i])
      fail(
          "'{}' was changed by a plugin, not by the optimizer: with parallel.shard = \"weights\" "
          "the ranks of a node hold it once, and each of them would change it; set "
          "parallel.shard to \"gradients\"",
          parameters_[i].first);
}

void NodeParameters::finish_update(const ShardPlan& plan) {
  gather_shards(parameters_, plan, exchange_, members_);
  node_.barrier();
  // Also where only others wrote: what is kept beside a parameter is kept for its version.
  for (const auto& [name, parameter] : parameters_) torch::autograd::impl::bump_version(parameter);
  accept();
}

}  // namespace attune::parallel
