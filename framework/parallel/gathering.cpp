#include "parallel/gathering.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"

namespace attune::parallel {
namespace {

using nlohmann::json;

constexpr std::int64_t nothing_more = -1;

}  // namespace

Gathering::Gathering(std::vector<Shard> mine, Comm group)
    : mine_(std::move(mine)), group_(std::move(group)) {
  auto shards = json::array();
  for (const auto& shard : mine_)
    shards.push_back({shard.name, shard.shape, static_cast<int>(shard.tensor.scalar_type()),
                      shard.offset, shard.tensor.numel(), shard.is_whole()});
  const auto of_ranks = group_.gather(shards.dump());
  for (int rank = 0; rank < group_.size(); ++rank) note(rank, of_ranks[rank]);
  choose_pieces();
}

void Gathering::note(int rank, const std::string& shards) {
  std::size_t index = 0;
  for (const auto& shard : json::parse(shards)) {
    const std::string name = shard[0];
    auto known = std::ranges::find(tensors_, name, &Tensor::name);
    if (known == tensors_.end()) {
      tensors_.push_back({name, shard[1], static_cast<at::ScalarType>(shard[2].get<int>())});
      pieces_.emplace_back();
      known = std::prev(tensors_.end());
    }
    ATTUNE_ASSERT(known->shape == shard[1].get<std::vector<std::int64_t>>(),
                  "'{}' has another shape on rank {}", name, rank);
    pieces_[static_cast<std::size_t>(known - tensors_.begin())].push_back(
        {rank, index++, shard[3], shard[4], shard[5]});
  }
}

/// A whole one of the first rank that has it; else pieces that follow each other.
void Gathering::choose_pieces() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    auto& all = pieces_[i];
    if (const auto whole = std::ranges::find(all, true, &Piece::is_whole); whole != all.end()) {
      all = {*whole};
      continue;
    }
    std::ranges::stable_sort(all, {}, &Piece::offset);
    std::vector<Piece> chosen;
    std::int64_t covered = 0;
    for (const auto& piece : all)
      if (piece.offset == covered && piece.count > 0) {
        chosen.push_back(piece);
        covered += piece.count;
      }
    std::int64_t numbers = 1;
    for (const auto size : tensors_[i].shape) numbers *= size;
    if (covered != numbers)
      fail("of '{}' the ranks hold {} numbers, of {}", tensors_[i].name, covered, numbers);
    all = std::move(chosen);
  }
}

void Gathering::run(const std::function<void()>& work) {
  group_.agree([&] {
    if (!group_.root()) return serve();
    try {
      work();
    } catch (...) {
      auto end = nothing_more;
      group_.broadcast(&end, sizeof end);
      throw;
    }
    auto end = nothing_more;
    group_.broadcast(&end, sizeof end);
  });
}

void Gathering::serve() {
  for (;;) {
    std::int64_t wanted = 0;
    group_.broadcast(&wanted, sizeof wanted);
    if (wanted == nothing_more) return;
    for (const auto& piece : pieces_[static_cast<std::size_t>(wanted)]) {
      if (piece.rank != group_.rank()) continue;
      const auto& held = mine_[piece.shard].tensor;
      send_tensor(held.detach().cpu().contiguous(), 0, group_);
    }
  }
}

at::Tensor Gathering::read(std::size_t index) {
  const auto& pieces = pieces_[index];
  const auto& tensor = tensors_[index];
  const bool is_here =
      std::ranges::all_of(pieces, [](const Piece& piece) { return piece.rank == 0; });
  if (!is_here) {
    auto wanted = static_cast<std::int64_t>(index);
    group_.broadcast(&wanted, sizeof wanted);
  }
  if (is_here && pieces.size() == 1 && pieces[0].is_whole)
    return mine_[pieces[0].shard].tensor.detach();
  const at::Tensor whole = at::empty(tensor.shape, at::TensorOptions().dtype(tensor.dtype));
  for (const auto& piece : pieces) {
    const auto part = whole.view({-1}).narrow(0, piece.offset, piece.count);
    if (piece.rank == 0)
      part.copy_(mine_[piece.shard].tensor.detach().reshape({-1}));
    else
      receive_tensor(part, piece.rank, group_);
  }
  return whole;
}

}  // namespace attune::parallel
