#include "train/replicas.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "core/split_mix.hpp"

namespace attune::train {
namespace {

at::ScalarType integer_of(std::int64_t bytes) {
  switch (bytes) {
    case 8: return at::kLong;
    case 4: return at::kInt;
    case 2: return at::kShort;
    default: return at::kByte;
  }
}

/// The sum of the elements' bits as integers: as fast as memory, and no rounding.
std::int64_t fingerprint(const at::Tensor& tensor) {
  const at::Tensor bits = tensor.detach().contiguous().view({-1}).view(
      integer_of(static_cast<std::int64_t>(tensor.element_size())));
  return at::sum(bits, at::kLong).item<std::int64_t>();
}

/// Of the first tensor that differs; the same text on every rank.
std::string difference(const std::vector<NamedTensor>& tensors,
                       const std::vector<std::int64_t>& fingerprints, const Comm& comm) {
  std::vector<std::vector<std::int64_t>> by_rank;
  for (const auto& text : comm.gather(nlohmann::json(fingerprints).dump()))
    by_rank.push_back(nlohmann::json::parse(text));
  for (std::size_t i = 0; i < tensors.size(); ++i)
    for (std::size_t rank = 1; rank < by_rank.size(); ++rank)
      if (by_rank[rank].size() <= i || by_rank[rank][i] != by_rank[0][i])
        return fmt::format(
            "{} differs between rank 0 and rank {}: a plugin changed it only on some ranks, or "
            "differently, for example with its own random numbers or on devices of different "
            "models; this state is not saved",
            tensors[i].first, rank);
  return "the ranks train different numbers of tensors";
}

}  // namespace

void check_replicas(const std::vector<NamedTensor>& tensors, const Comm& comm) {
  if (comm.size() == 1) return;
  std::vector<std::int64_t> fingerprints;
  std::uint64_t all = 0;
  for (const auto& [name, tensor] : tensors) {
    fingerprints.push_back(fingerprint(tensor));
    all = mixed({all, static_cast<std::uint64_t>(fingerprints.back())});
  }
  const auto most = comm.max(static_cast<std::int64_t>(all));
  const auto least = ~comm.max(~static_cast<std::int64_t>(all));
  if (most == least) return;
  const auto text = difference(tensors, fingerprints, comm);
  comm.agree([&] { throw Fault(text); });
}

}  // namespace attune::train
