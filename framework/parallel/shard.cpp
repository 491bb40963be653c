#include "parallel/shard.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>

#include "parallel/runner.hpp"
#include "parallel/wide_gradients.hpp"

namespace attune::parallel {
namespace {

/// Where a tensor of `size` numbers is cut, wanted at `at`.
std::int64_t cut_near(std::int64_t at, std::int64_t size, bool may_be_cut) {
  if (may_be_cut) return at / shard_grain * shard_grain;
  return 2 * at < size ? 0 : size;
}

/// Elements of a tensor of this shape; a double, which no overflow makes small.
double elements_of(const std::vector<std::int64_t>& shape) {
  return std::transform_reduce(shape.begin(), shape.end(), 1.0, std::multiplies<>(),
                               [](std::int64_t size) { return static_cast<double>(size); });
}

/// Error if pieces say that they are of different tensors, or one lies outside of its tensor.
void check_together(const std::vector<const Shard*>& pieces) {
  const auto& first = *pieces.front();
  for (const auto* piece : pieces) {
    const double end =
        static_cast<double>(piece->offset) + static_cast<double>(piece->tensor.numel());
    const bool is_within = piece->offset >= 0 && end <= elements_of(first.shape);
    const bool is_like_first =
        piece->shape == first.shape && piece->tensor.scalar_type() == first.tensor.scalar_type();
    const bool has_form = piece->is_whole() || piece->tensor.dim() == 1;
    if (!is_within || !is_like_first || !has_form ||
        std::ranges::any_of(piece->shape, [](std::int64_t size) { return size < 0; }))
      fail("pieces of '{}' do not belong together", first.name);
  }
}

/// Of one tensor. Nothing is allocated before they are known to be all of it.
at::Tensor whole_of(std::vector<const Shard*> pieces) {
  check_together(pieces);
  const auto whole_piece = std::ranges::find_if(pieces, &Shard::is_whole);
  if (whole_piece != pieces.end()) return (*whole_piece)->tensor;
  const auto& first = *pieces.front();
  std::ranges::stable_sort(pieces, {}, &Shard::offset);
  std::int64_t covered = 0;
  for (const auto* piece : pieces)
    if (piece->offset <= covered) covered = std::max(covered, piece->end());
  if (static_cast<double>(covered) != elements_of(first.shape))
    fail("of '{}' {} numbers are there, of {:.0f}", first.name, covered, elements_of(first.shape));
  const at::Tensor whole = at::empty(first.shape, first.tensor.options());
  for (const auto* piece : pieces)
    whole.view({-1}).narrow(0, piece->offset, piece->tensor.numel()).copy_(piece->tensor);
  return whole;
}

Buckets one_bucket(std::size_t tensors) {
  std::vector<std::size_t> all(tensors);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return {all};
}

/// An all-gather of a bucket.
struct Gathered {
  Pending work;
  at::Tensor row;                  // of elements, one rank's after the other's
  std::vector<at::Tensor> pieces;  // that get them; none where the row is the tensor

  void settle() const {
    work->wait();
    std::int64_t from = 0;
    for (const auto& piece : pieces) {
      piece.copy_(row.narrow(0, from, piece.numel()).view(piece.sizes()));
      from += piece.numel();
    }
  }
};

/// Views of one rank's elements of a bucket.
std::vector<at::Tensor> pieces_of(const NamedTensors& tensors, const ShardPlan& plan, int rank,
                                  std::size_t bucket) {
  std::vector<at::Tensor> pieces;
  for (const auto& range : plan.of_rank(rank, bucket)) {
    const auto& [name, tensor] = tensors[range.tensor];
    pieces.push_back(Shard::of(name, tensor.detach(), range.first, range.count).tensor);
  }
  return pieces;
}

/// The tensor that is alone in a bucket, as a row; undefined for other buckets.
at::Tensor row_of_single(const NamedTensors& tensors, const std::vector<std::size_t>& bucket) {
  const auto& first = tensors[bucket.front()].second;
  return bucket.size() == 1 && first.is_contiguous() ? first.detach().view({-1}) : at::Tensor();
}

Gathered start_gather(const NamedTensors& tensors, const ShardPlan& plan, const RankGroup& group,
                      const std::vector<int>& members, std::size_t bucket) {
  const auto options = tensors[plan.buckets()[bucket].front()].second.detach().options();
  const auto rank = members[static_cast<std::size_t>(group.comm.rank())];
  std::vector<at::Tensor> own{at::empty({0}, options)};
  for (const auto& piece : pieces_of(tensors, plan, rank, bucket)) own.push_back(piece.flatten());
  std::vector<at::Tensor> mine{at::cat(own)};
  std::vector<std::int64_t> sizes;
  for (const int member : members)
    sizes.push_back(plan.sizes(bucket)[static_cast<std::size_t>(member)]);
  Gathered gathered;
  if (std::ssize(members) == plan.ranks())
    gathered.row = row_of_single(tensors, plan.buckets()[bucket]);
  if (!gathered.row.defined()) {
    gathered.row = at::empty({std::reduce(sizes.begin(), sizes.end())}, options);
    for (const int member : members)
      for (auto& piece : pieces_of(tensors, plan, member, bucket))
        gathered.pieces.push_back(std::move(piece));
  }
  std::vector<std::vector<at::Tensor>> of_ranks{gathered.row.split_with_sizes(sizes)};
  gathered.work = group.collectives->allgather(of_ranks, mine);
  return gathered;
}

}  // namespace

Shard Shard::of(const std::string& name, const at::Tensor& whole, std::int64_t first,
                std::int64_t count) {
  if (first == 0 && count == whole.numel()) return {name, whole};
  ATTUNE_ASSERT(whole.is_contiguous() && first >= 0 && first + count <= whole.numel(),
                "{}: {} numbers from {}", name, count, first);
  Shard piece;
  piece.name = name;
  piece.shape = whole.sizes().vec();
  piece.offset = first;
  piece.tensor = whole.detach().view({-1}).narrow(0, first, count);
  return piece;
}

Buckets buckets_of(const NamedTensors& tensors) {
  constexpr std::size_t most = 25 << 20;  // as c10d::Reducer's
  Buckets buckets;
  std::size_t bytes = 0;
  const at::Tensor* previous = nullptr;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& tensor = tensors[i].second;
    const auto own = gradient_bytes(tensor);
    const bool fits = previous && bytes + own <= most &&
                      previous->scalar_type() == tensor.scalar_type() &&
                      gradient_dtype(*previous) == gradient_dtype(tensor);
    if (!fits) buckets.emplace_back();
    bytes = fits ? bytes + own : own;
    buckets.back().push_back(i);
    previous = &tensor;
  }
  return buckets;
}

ShardPlan::ShardPlan(const NamedTensors& tensors, int ranks, Cut cut, Buckets buckets)
    : buckets_(std::move(buckets)),
      ranges_(static_cast<std::size_t>(ranks)),
      starts_(ranges_.size()),
      pieces_(tensors.size()) {
  const auto size = [&](std::size_t tensor) { return tensors[tensor].second.numel(); };
  const auto sum = [&](const std::vector<std::size_t>& bucket) {
    return std::transform_reduce(bucket.begin(), bucket.end(), std::int64_t{0}, std::plus<>(),
                                 size);
  };
  auto all =
      std::transform_reduce(buckets_.begin(), buckets_.end(), std::int64_t{0}, std::plus<>(), sum);
  std::int64_t begin = 0;  // of the tensor, among all numbers that are shared out together
  for (const auto& bucket : buckets_) {
    for (std::size_t rank = 0; rank < ranges_.size(); ++rank)
      starts_[rank].push_back(ranges_[rank].size());
    sizes_.emplace_back(ranges_.size(), 0);
    if (cut == Cut::anywhere) {
      all = sum(bucket);
      begin = 0;
    }
    for (const auto i : bucket) {
      divide(i, size(i), begin, all, cut == Cut::anywhere && tensors[i].second.is_contiguous());
      begin += size(i);
    }
  }
}

ShardPlan::ShardPlan(const NamedTensors& tensors, int ranks, Cut cut)
    : ShardPlan(tensors, ranks, cut, one_bucket(tensors.size())) {}

ShardPlan ShardPlan::whole(const NamedTensors& tensors) {
  return {tensors, 1, Cut::between_tensors, buckets_of(tensors)};
}

void ShardPlan::divide(std::size_t tensor, std::int64_t size, std::int64_t begin, std::int64_t all,
                       bool may_be_cut) {
  const auto bound = [&](int rank) {
    const auto even = all * rank / ranks() - begin;
    if (rank == 0 || even <= 0) return std::int64_t{0};
    return rank == ranks() || even >= size ? size : cut_near(even, size, may_be_cut);
  };
  for (int rank = 0; rank < ranks(); ++rank) {
    const auto first = bound(rank);
    const auto count = bound(rank + 1) - first;
    if (count == 0 && !(size == 0 && rank == 0)) continue;
    ranges_[static_cast<std::size_t>(rank)].push_back({tensor, first, count});
    sizes_.back()[static_cast<std::size_t>(rank)] += count;
    ++pieces_[tensor];
  }
}

std::span<const ShardPlan::Range> ShardPlan::of_rank(int rank, std::size_t bucket) const {
  const auto& ranges = of_rank(rank);
  const auto& starts = starts_[static_cast<std::size_t>(rank)];
  const auto end = bucket + 1 < starts.size() ? starts[bucket + 1] : ranges.size();
  return std::span(ranges).subspan(starts[bucket], end - starts[bucket]);
}

std::int64_t ShardPlan::size(int rank) const {
  const auto& ranges = of_rank(rank);
  return std::transform_reduce(ranges.begin(), ranges.end(), std::int64_t{0}, std::plus<>(),
                               [](const Range& range) { return range.count; });
}

int ShardPlan::fullest() const {
  int fullest = 0;
  for (int rank = 1; rank < ranks(); ++rank)
    if (size(rank) > size(fullest)) fullest = rank;
  return fullest;
}

void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const RankGroup& group) {
  std::vector<int> all(static_cast<std::size_t>(plan.ranks()));
  std::iota(all.begin(), all.end(), 0);
  gather_shards(tensors, plan, group, all);
}

void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const RankGroup& group,
                   const std::vector<int>& members) {
  ATTUNE_ASSERT(std::ssize(members) == group.comm.size(), "{} members, and {} ranks",
                members.size(), group.comm.size());
  if (members.size() == 1) return;
  const at::NoGradGuard no_grad;
  std::deque<Gathered> under_way;
  const auto settle_one = [&] {
    under_way.front().settle();
    under_way.pop_front();
  };
  for (std::size_t bucket = 0; bucket < plan.buckets().size(); ++bucket) {
    if (under_way.size() == most_under_way) settle_one();
    under_way.push_back(start_gather(tensors, plan, group, members, bucket));
  }
  while (!under_way.empty()) settle_one();
}

std::vector<Shard> gradient_shards(const NamedTensors& parameters, const ShardPlan& plan,
                                   int rank) {
  const at::NoGradGuard no_grad;
  std::vector<Shard> shards;
  for (const auto& range : plan.of_rank(rank)) {
    auto [name, parameter] = parameters[range.tensor];
    if (!parameter.grad().defined()) parameter.mutable_grad() = zero_gradient(parameter);
    const auto& gradient = parameter.grad();
    const auto placed = gradient.strides() == parameter.strides()
                            ? gradient
                            : at::empty_like(parameter, gradient.options()).copy_(gradient);
    shards.push_back(Shard::of(name, placed, range.first, range.count));
  }
  return shards;
}

std::vector<Shard> shards_of(const NamedTensors& parameters, const ShardPlan& plan, int rank,
                             const std::vector<at::Tensor>& by_bucket) {
  const at::NoGradGuard no_grad;
  std::vector<Shard> shards;
  for (std::size_t bucket = 0; bucket < by_bucket.size(); ++bucket) {
    std::int64_t from = 0;
    for (const auto& range : plan.of_rank(rank, bucket)) {
      const auto& [name, parameter] = parameters[range.tensor];
      const auto part = by_bucket[bucket].narrow(0, from, range.count);
      from += range.count;
      if (range.count < parameter.numel()) {
        auto& shard = shards.emplace_back();
        shard.name = name;
        shard.shape = parameter.sizes().vec();
        shard.offset = range.first;
        shard.tensor = part;
      } else {
        const auto whole = part.view(parameter.sizes());
        shards.emplace_back(name, parameter.is_contiguous()
                                      ? whole
                                      : at::empty_like(parameter, whole.options()).copy_(whole));
      }
    }
  }
  return shards;
}

NamedTensors put_together(const std::vector<Shard>& shards) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<const Shard*>> by_name;
  for (const auto& shard : shards) {
    auto& pieces = by_name[shard.name];
    if (pieces.empty()) names.push_back(shard.name);
    pieces.push_back(&shard);
  }
  NamedTensors wholes;
  for (const auto& name : names) wholes.emplace_back(name, whole_of(by_name.at(name)));
  return wholes;
}

}  // namespace attune::parallel
