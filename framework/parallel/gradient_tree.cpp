#include "parallel/gradient_tree.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <sstream>

#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"

namespace attune::parallel {
namespace {

/// How many nodes a level has; the last one may stand for fewer leaves than the others.
std::int64_t width(std::int64_t leaves, int level) {
  return (leaves + (std::int64_t{1} << level) - 1) >> level;
}

}  // namespace

GradientTree::GradientTree(NamedTensors parameters, Comm data) : data_(std::move(data)) {
  for (const auto& [name, tensor] : parameters) parameters_.push_back(tensor);
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

/// Level by level every pair whose halves lie on two ranks comes together on the left one's. All
/// ranks know who holds what, because they tell each other once.
void GradientTree::finish() {
  ATTUNE_ASSERT(next_ == last_, "leaf {} of {}", next_, last_);
  std::string mine;
  for (const auto& [node, sum] : sums_) mine += fmt::format("{} {} ", node.level, node.index);
  std::map<Node, int> holders;
  const auto all = data_.gather(mine);
  for (int rank = 0; rank < data_.size(); ++rank) {
    std::istringstream text(all[rank]);
    for (Node node{}; text >> node.level >> node.index;) holders[node] = rank;
  }
  const InCollective waiting;
  while (holders.size() > 1 || holders.begin()->first.index != 0 ||
         width(leaves_, holders.begin()->first.level) > 1) {
    const auto [left, left_rank] = *holders.begin();  // the lowest level's first
    const Node right{left.level, left.index + 1};
    const Node parent{left.level + 1, left.index / 2};
    holders.erase(left);
    const auto found = holders.find(right);
    if (left.index % 2 == 0 && found != holders.end()) {
      const int right_rank = found->second;
      if (data_.rank() == right_rank && right_rank != left_rank)
        send_tensor(sums_.at(right), left_rank, data_);
      if (data_.rank() == left_rank) {
        auto other = right_rank == left_rank ? sums_.at(right) : at::empty_like(sums_.at(left));
        if (right_rank != left_rank) receive_tensor(other, right_rank, data_);
        sums_.at(left).add_(other);
      }
      sums_.erase(right);
      holders.erase(found);
    }
    if (data_.rank() == left_rank) {
      auto sum = std::move(sums_.at(left));
      sums_.erase(left);
      sums_.emplace(parent, std::move(sum));
    }
    holders[parent] = left_rank;
  }
  const int root = holders.begin()->second;
  auto total = data_.rank() == root ? sums_.begin()->second : take_gradients();
  sums_.clear();
  data_.broadcast(total.data_ptr(), total.nbytes(), root);
  give_gradients(total);
}

at::Tensor GradientTree::take_gradients() {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> flat;
  for (auto& parameter : parameters_) {
    if (!parameter.grad().defined()) parameter.mutable_grad() = torch::zeros_like(parameter);
    flat.push_back(parameter.grad().flatten());
  }
  auto all = torch::cat(flat).to(torch::kCPU);
  for (auto& parameter : parameters_) parameter.mutable_grad() = at::Tensor();
  return all;
}

void GradientTree::give_gradients(const at::Tensor& sum) {
  torch::NoGradGuard no_grad;
  std::int64_t from = 0;
  for (auto& parameter : parameters_) {
    parameter.mutable_grad() =
        sum.narrow(0, from, parameter.numel()).view_as(parameter).to(parameter.options());
    from += parameter.numel();
  }
}

}  // namespace attune::parallel
