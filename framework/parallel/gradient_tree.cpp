#include "parallel/gradient_tree.hpp"

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <bit>
#include <numeric>
#include <sstream>

#include "parallel/backend.hpp"
#include "parallel/wide_gradients.hpp"

namespace attune::parallel {
namespace {

/// How many nodes a level has; the last one may stand for fewer leaves than the others.
std::int64_t width(std::int64_t leaves, int level) {
  return (leaves + (std::int64_t{1} << level) - 1) >> level;
}

}  // namespace

GradientTree::GradientTree(const NamedTensors& parameters, Comm data, ProcessGroup group)
    : data_(std::move(data)),
      group_(std::move(group)),
      dtype_(gradient_dtype(parameters.front().second)) {
  for (const auto& [name, tensor] : parameters) {
    parameters_.push_back(tensor);
    elements_ += tensor.numel();
    dtype_ = c10::promoteTypes(dtype_, gradient_dtype(tensor));
  }
  constexpr std::int64_t alignment = 64;  // elements
  const auto unit = data_.size() == 1 ? 1 : alignment * data_.size();
  padded_ = (elements_ + unit - 1) / unit * unit;
}

GradientTree::~GradientTree() = default;

std::int64_t GradientTree::most_sums(std::int64_t leaves_of_rank, int ranks) {
  const std::int64_t levels = std::bit_width(static_cast<std::uint64_t>(leaves_of_rank)) - 1;
  return std::max<std::int64_t>(1, ranks == 1 ? levels : 2 * levels);
}

void GradientTree::begin(std::int64_t leaves, std::int64_t first, std::int64_t last) {
  ATTUNE_ASSERT(sums_.empty() && 0 <= first && first <= last && last <= leaves,
                "leaves {} first {} last {}", leaves, first, last);
  leaves_ = leaves;
  next_ = first;
  last_ = last;
}

void GradientTree::add() {
  ATTUNE_ASSERT(next_ < last_, "leaf {} of {}", next_, last_);
  settle({0, next_++}, take_gradients());
}

/// Adds it to its sibling, and the two to theirs, as far as this rank has them.
void GradientTree::settle(Node node, at::Tensor sum) {
  while (width(leaves_, node.level) > 1) {
    const Node sibling{node.level, node.index ^ 1};
    const Node parent{node.level + 1, node.index / 2};
    if (sibling.index < width(leaves_, node.level)) {
      const auto found = sums_.find(sibling);
      if (found == sums_.end()) break;
      // Left plus right, in place of whichever is at hand: addition of two numbers does not depend
      // on their order.
      sum.add_(found->second);
      sums_.erase(found);
    }
    node = parent;
  }
  sums_.emplace(node, std::move(sum));
}

std::vector<std::vector<GradientTree::Node>> GradientTree::nodes_of_ranks() const {
  std::string mine;
  for (const auto& [node, sum] : sums_) mine += fmt::format("{} {} ", node.level, node.index);
  std::vector<std::vector<Node>> ranks;
  for (const auto& theirs : data_.gather(mine)) {
    auto& nodes = ranks.emplace_back();
    std::istringstream text(theirs);
    for (Node node{}; text >> node.level >> node.index;) nodes.push_back(node);
  }
  return ranks;
}

/// The sums themselves are given up, so that they are not held beside what is received.
at::Tensor GradientTree::take_shards_to_send() {
  std::vector<at::Tensor> sums;
  for (const auto& [node, sum] : sums_) sums.push_back(sum.view({data_.size(), -1}));
  sums_.clear();
  if (sums.empty()) return at::empty({0}, parameters_.front().options().dtype(dtype_));
  return sums.size() == 1 ? sums.front().flatten() : at::cat(sums, 1).flatten();
}

/// Afterwards sums_ holds this rank's shard of the root alone.
void GradientTree::exchange() {
  const auto ranks = nodes_of_ranks();
  const auto shard = padded_ / data_.size();
  std::vector<std::int64_t> received;
  for (const auto& nodes : ranks) received.push_back(std::ssize(nodes) * shard);
  std::vector<std::int64_t> sent(ranks.size(), std::ssize(sums_) * shard);
  auto mine = take_shards_to_send();
  auto shards = at::empty({std::reduce(received.begin(), received.end())}, mine.options());
  group_->alltoall_base(shards, mine, received, sent)->wait();
  std::int64_t from = 0;
  for (const auto& nodes : ranks)
    for (const auto& node : nodes) {
      settle(node, shards.narrow(0, from, shard));
      from += shard;
    }
}

void GradientTree::finish() {
  ATTUNE_ASSERT(next_ == last_, "leaf {} of {}", next_, last_);
  const torch::NoGradGuard no_grad;
  if (data_.size() > 1) exchange();
  ATTUNE_ASSERT(sums_.size() == 1, "{} roots", sums_.size());
  auto total = sums_.begin()->second;
  sums_.clear();
  if (data_.size() > 1) {
    auto whole = at::empty({padded_}, total.options());
    group_->_allgather_base(whole, total)->wait();
    total = whole;
  }
  give_gradients(total);
}

at::Tensor GradientTree::take_gradients() {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> flat;
  for (auto& parameter : parameters_) {
    if (!parameter.grad().defined()) parameter.mutable_grad() = zero_gradient(parameter);
    flat.push_back(parameter.grad().flatten());
  }
  if (padded_ > elements_) flat.push_back(flat.front().new_zeros({padded_ - elements_}));
  auto all = torch::cat(flat);
  for (auto& parameter : parameters_) parameter.mutable_grad() = at::Tensor();
  return all;
}

void GradientTree::give_gradients(const at::Tensor& sum) {
  torch::NoGradGuard no_grad;
  std::int64_t from = 0;
  for (auto& parameter : parameters_) {
    parameter.mutable_grad() =
        sum.narrow(0, from, parameter.numel()).view_as(parameter).to(gradient_dtype(parameter));
    from += parameter.numel();
  }
}

}  // namespace attune::parallel
