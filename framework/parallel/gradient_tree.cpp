#include "parallel/gradient_tree.hpp"

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <bit>
#include <numeric>
#include <sstream>

#include "parallel/backend.hpp"
#include "parallel/scattered_sum.hpp"
#include "parallel/wide_gradients.hpp"

namespace attune::parallel {
namespace {

/// How many nodes a level has; the last one may stand for fewer leaves than the others.
std::int64_t width(std::int64_t leaves, int level) {
  return (leaves + (std::int64_t{1} << level) - 1) >> level;
}

constexpr std::int64_t alignment = 64;  // elements

}  // namespace

GradientTree::GradientTree(const NamedTensors& parameters, const ShardPlan& plan,
                           const Sharing& sharing)
    : parameters_(parameters),
      plan_(plan),
      sharing_(sharing),
      dtype_(gradient_dtype(parameters.front().second)) {
  for (const auto& [name, tensor] : parameters)
    dtype_ = c10::promoteTypes(dtype_, gradient_dtype(tensor));
  const auto copies = sharing.copies.comm.size();
  const auto unit = copies == 1 ? 1 : alignment * copies;
  for (int copy = 0; copy < copies; ++copy)
    for (int rank = 0; rank < plan.ranks(); ++rank)
      parts_.push_back((plan.size(rank) + unit - 1) / unit * unit / copies);
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
  for (const auto& theirs : sharing_.data.comm.gather(mine)) {
    auto& nodes = ranks.emplace_back();
    std::istringstream text(theirs);
    for (Node node{}; text >> node.level >> node.index;) nodes.push_back(node);
  }
  return ranks;
}

std::int64_t GradientTree::own_part() const {
  return parts_[static_cast<std::size_t>(sharing_.data.comm.rank())];
}

/// The sums themselves are given up, so that they are not held beside what is received.
at::Tensor GradientTree::take_parts_to_send() {
  std::vector<at::Tensor> sums;
  for (const auto& [node, sum] : sums_) sums.push_back(sum);
  sums_.clear();
  const auto options = parameters_.front().second.options().dtype(dtype_).requires_grad(false);
  if (sums.empty()) return at::empty({0}, options);
  if (sums.size() == 1) return sums.front();
  std::vector<at::Tensor> by_rank;
  std::int64_t from = 0;
  for (const auto part : parts_) {
    for (const auto& sum : sums) by_rank.push_back(sum.narrow(0, from, part));
    from += part;
  }
  return at::cat(by_rank);
}

/// Afterwards sums_ holds this rank's part of the root alone.
void GradientTree::exchange() {
  const auto ranks = nodes_of_ranks();
  const auto part = own_part();
  std::vector<std::int64_t> received;
  for (const auto& nodes : ranks) received.push_back(std::ssize(nodes) * part);
  std::vector<std::int64_t> sent;
  for (const auto of_rank : parts_) sent.push_back(std::ssize(sums_) * of_rank);
  auto mine = take_parts_to_send();
  auto parts = at::empty({std::reduce(received.begin(), received.end())}, mine.options());
  sharing_.data.collectives->alltoall_base(parts, mine, received, sent)->wait();
  std::int64_t from = 0;
  for (const auto& nodes : ranks)
    for (const auto& node : nodes) {
      settle(node, parts.narrow(0, from, part));
      from += part;
    }
}

std::vector<Shard> GradientTree::finish() {
  ATTUNE_ASSERT(next_ == last_, "leaf {} of {}", next_, last_);
  const torch::NoGradGuard no_grad;
  if (sharing_.data.comm.size() > 1) exchange();
  ATTUNE_ASSERT(sums_.size() == 1, "{} roots", sums_.size());
  auto sum = sums_.begin()->second;
  sums_.clear();
  if (const auto copies = sharing_.copies.comm.size(); copies > 1) {
    auto whole = at::empty({copies * own_part()}, sum.options());
    sharing_.copies.collectives->_allgather_base(whole, sum)->wait();
    sum = whole;
  }
  return shards_of(sum);
}

/// In the order of the ranks' parts.
at::Tensor GradientTree::take_gradients() {
  torch::NoGradGuard no_grad;
  const auto options = parameters_.front().second.options().dtype(dtype_).requires_grad(false);
  const auto copies = sharing_.copies.comm.size();
  std::vector<at::Tensor> shards;
  for (int rank = 0; rank < plan_.ranks(); ++rank) {
    std::vector<at::Tensor> pieces;
    for (const auto& range : plan_.of_rank(rank)) {
      const auto& [name, parameter] = parameters_[range.tensor];
      const auto gradient =
          parameter.grad().defined() ? parameter.grad() : zero_gradient(parameter);
      const auto whole = range.count < parameter.numel() ? gradient.contiguous() : gradient;
      pieces.push_back(Shard::of(name, whole, range.first, range.count).tensor.flatten());
    }
    const auto padded = copies * parts_[static_cast<std::size_t>(rank)];
    pieces.push_back(at::zeros({padded - plan_.size(rank)}, options));
    shards.push_back(at::cat(pieces));
  }
  for (const auto& [name, parameter] : parameters_)
    at::Tensor(parameter).mutable_grad() = at::Tensor();
  if (shards.size() == 1) return shards.front();
  std::vector<at::Tensor> parts;
  for (int copy = 0; copy < copies; ++copy)
    for (const auto& shard : shards) parts.push_back(shard.chunk(copies)[copy]);
  return at::cat(parts);
}

std::vector<Shard> GradientTree::shards_of(const at::Tensor& sum) const {
  std::vector<at::Tensor> by_bucket;
  const auto rank = sharing_.shards.comm.rank();
  std::int64_t from = 0;
  for (std::size_t bucket = 0; bucket < plan_.buckets().size(); ++bucket) {
    const auto count = plan_.sizes(bucket)[static_cast<std::size_t>(rank)];
    const auto& some = parameters_[plan_.buckets()[bucket].front()].second;
    by_bucket.push_back(sum.narrow(0, from, count).to(gradient_dtype(some)));
    from += count;
  }
  return parallel::shards_of(parameters_, plan_, rank, by_bucket);
}

}  // namespace attune::parallel
