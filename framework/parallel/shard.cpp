#include "parallel/shard.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <algorithm>
#include <map>

namespace attune::parallel {
namespace {

/// Where a tensor of `size` numbers is cut, wanted at `at`.
std::int64_t cut_near(std::int64_t at, std::int64_t size, bool may_be_cut) {
  if (may_be_cut) return at / shard_grain * shard_grain;
  return 2 * at < size ? 0 : size;
}

/// Of one tensor. Nothing is allocated before they are known to be all of it.
at::Tensor whole_of(std::vector<const Shard*> pieces) {
  const auto& first = *pieces.front();
  if (first.is_whole()) return first.tensor;
  std::ranges::stable_sort(pieces, {}, &Shard::offset);
  std::int64_t covered = 0;
  for (const auto* piece : pieces) {
    if (piece->shape != first.shape || piece->tensor.dim() != 1 ||
        piece->tensor.scalar_type() != first.tensor.scalar_type())
      fail("pieces of '{}' do not belong together", first.name);
    if (piece->offset >= 0 && piece->offset <= covered) covered = std::max(covered, piece->end());
  }
  double numbers = 1;  // which no overflow makes small
  for (const auto size : first.shape) numbers *= static_cast<double>(size);
  if (static_cast<double>(covered) != numbers)
    fail("of '{}' {} numbers are there, of {:.0f}", first.name, covered, numbers);
  const at::Tensor whole = at::empty(first.shape, first.tensor.options());
  for (const auto* piece : pieces)
    whole.view({-1}).narrow(0, piece->offset, piece->tensor.numel()).copy_(piece->tensor);
  return whole;
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

ShardPlan::ShardPlan(const NamedTensors& tensors, int ranks, Cut cut)
    : ranges_(static_cast<std::size_t>(ranks)), pieces_(tensors.size()) {
  std::int64_t all = 0;
  for (const auto& [name, tensor] : tensors) all += tensor.numel();
  std::int64_t begin = 0;  // of the tensor, among all numbers
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& tensor = tensors[i].second;
    const auto size = tensor.numel();
    const bool may_be_cut = cut == Cut::anywhere && tensor.is_contiguous();
    const auto bound = [&](int rank) {
      const auto even = all * rank / ranks - begin;
      if (rank == 0 || even <= 0) return std::int64_t{0};
      return rank == ranks || even >= size ? size : cut_near(even, size, may_be_cut);
    };
    for (int rank = 0; rank < ranks; ++rank) {
      const auto first = bound(rank);
      const auto count = bound(rank + 1) - first;
      if (count == 0 && !(size == 0 && rank == 0)) continue;
      ranges_[static_cast<std::size_t>(rank)].push_back({i, first, count});
      ++pieces_[i];
    }
    begin += size;
  }
}

void gather_shards(const NamedTensors& tensors, const ShardPlan& plan, const Comm& group) {
  ATTUNE_ASSERT(plan.ranks() == group.size(), "a plan for {} ranks, and {} of them", plan.ranks(),
                group.size());
  if (group.size() == 1) return;
  const at::NoGradGuard no_grad;
  for (int rank = 0; rank < plan.ranks(); ++rank)
    for (const auto& range : plan.of_rank(rank)) {
      const auto& [name, tensor] = tensors[range.tensor];
      const auto here = Shard::of(name, tensor.detach(), range.first, range.count).tensor;
      const auto buffer = here.cpu().contiguous();
      group.broadcast(buffer.data_ptr(), buffer.nbytes(), rank);
      if (buffer.data_ptr() != here.data_ptr()) here.copy_(buffer);
    }
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
