#include "parallel/mpi_collectives.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "parallel/mpi.hpp"
#include "parallel/ring.hpp"

namespace attune::parallel {
namespace {

MPI_Datatype mpi_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return MPI_FLOAT;
    case at::kDouble: return MPI_DOUBLE;
    case at::kByte: return MPI_UINT8_T;
    case at::kChar: return MPI_INT8_T;
    case at::kShort: return MPI_INT16_T;
    case at::kInt: return MPI_INT32_T;
    case at::kLong: return MPI_INT64_T;
    case at::kUInt16: return MPI_UINT16_T;
    case at::kUInt32: return MPI_UINT32_T;
    case at::kUInt64: return MPI_UINT64_T;
    default:
      throw Fault(
          fmt::format("tensors of type {} cannot be reduced over MPI", c10::toString(type)));
  }
}

MPI_Op mpi_op(Reduction op) {
  switch (op) {
    case c10d::ReduceOp::SUM: return MPI_SUM;
    case c10d::ReduceOp::PRODUCT: return MPI_PROD;
    case c10d::ReduceOp::MIN: return MPI_MIN;
    case c10d::ReduceOp::MAX: return MPI_MAX;
    default:
      throw Fault(fmt::format("reduction {} is not among those over MPI: sum, product, min, max",
                              static_cast<int>(op)));
  }
}

Reduced reduced(const at::Tensor& tensor, Reduction op) {
  return {mpi_type(tensor.scalar_type()), mpi_op(op),
          static_cast<std::int64_t>(tensor.element_size())};
}

/// The memory of a contiguous tensor.
at::Tensor bytes_of(const at::Tensor& tensor) {
  return at::from_blob(tensor.data_ptr(), {static_cast<std::int64_t>(tensor.nbytes())},
                       at::TensorOptions().dtype(at::kByte));
}

/// What one call of MPI moves of blocks that lie one behind another: a window of each.
struct Round {
  std::int64_t done;  // of every block, by the rounds before
  std::vector<int> counts,
      offsets;  // of the windows; offsets as they lie when packed one behind another
  std::vector<std::int64_t> begins;  // of the windows among the blocks
  bool is_whole;                     // the windows are the blocks

  std::int64_t total() const { return offsets.back() + counts.back(); }

  std::vector<at::Tensor> windows(const at::Tensor& blocks) const {
    std::vector<at::Tensor> all;
    for (std::size_t i = 0; i < counts.size(); ++i)
      all.push_back(blocks.narrow(0, begins[i], counts[i]));
    return all;
  }
  at::Tensor packed(const at::Tensor& blocks) const {
    return is_whole ? blocks : at::cat(windows(blocks));
  }
  void unpack(const at::Tensor& packed, const at::Tensor& blocks) const {
    const auto all = windows(blocks);
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i].copy_(packed.narrow(0, offsets[i], counts[i]));
  }
};

/// most: of all windows of a round together. The same on every rank that has the same sizes.
std::vector<Round> rounds_of(const std::vector<std::int64_t>& sizes, std::int64_t most) {
  const auto total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  const auto longest = *std::max_element(sizes.begin(), sizes.end());
  const auto piece = total <= most ? longest : std::max<std::int64_t>(1, most / std::ssize(sizes));
  std::vector<Round> rounds;
  for (std::int64_t done = 0; done < longest; done += piece) {
    Round round{done, {}, {}, {}, total <= most};
    std::int64_t begin = 0;
    int offset = 0;
    for (const auto size : sizes) {
      round.counts.push_back(static_cast<int>(std::clamp<std::int64_t>(size - done, 0, piece)));
      round.offsets.push_back(offset);
      round.begins.push_back(begin + std::min(done, size));
      offset += round.counts.back();
      begin += size;
    }
    rounds.push_back(std::move(round));
  }
  return rounds;
}

/// Tensors wherever they lie, each as one MPI datatype: of any length, because its pieces are
/// counted in int.
class Blocks {
 public:
  Blocks(const std::vector<at::Tensor>& tensors, std::int64_t largest) {
    for (const auto& tensor : tensors) add(tensor, largest);
  }
  ~Blocks() {
    for (std::size_t i = 0; i < types_.size(); ++i)
      if (counts_[i] > 0) MPI_Type_free(&types_[i]);
  }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  const int* counts() const { return counts_.data(); }
  const MPI_Datatype* types() const { return types_.data(); }

 private:
  void add(const at::Tensor& tensor, std::int64_t largest) {
    const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
    counts_.push_back(bytes > 0);
    types_.push_back(MPI_BYTE);
    if (bytes == 0) return;
    std::vector<int> lengths;
    std::vector<MPI_Aint> addresses;
    for (std::int64_t done = 0; done < bytes; done += largest) {
      MPI_Aint address = 0;
      MPI_Get_address(static_cast<std::byte*>(tensor.data_ptr()) + done, &address);
      addresses.push_back(address);
      lengths.push_back(static_cast<int>(std::min(bytes - done, largest)));
    }
    const auto pieces = static_cast<int>(lengths.size());
    check_mpi(MPI_Type_create_hindexed(pieces, lengths.data(), addresses.data(), MPI_BYTE,
                                       &types_.back()),
              "MPI_Type_create_hindexed");
    check_mpi(MPI_Type_commit(&types_.back()), "MPI_Type_commit");
  }

  std::vector<int> counts_;
  std::vector<MPI_Datatype> types_;
};

}  // namespace

at::ScalarType reduced_as(at::ScalarType type) {
  return type == at::kBFloat16 || type == at::kHalf ? at::kFloat : type;
}

void MpiCollectives::all_reduce(const at::Tensor& tensor, Reduction op) const {
  const auto what = reduced(tensor, op);
  const auto piece = std::max<std::int64_t>(1, largest_ / what.bytes);
  auto* const data = static_cast<std::byte*>(tensor.data_ptr());
  const InCollective waiting(comm(), Collective::all_reduce, tensor.nbytes());
  if (ring_pays(tensor.numel() * what.bytes, comm().size()))
    return ring_all_reduce(comm(), what, data, tensor.numel(), std::min(ring_segment, largest_));
  for (std::int64_t done = 0; done < tensor.numel(); done += piece) {
    const auto count = static_cast<int>(std::min(tensor.numel() - done, piece));
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, data + done * what.bytes, count, what.type, what.op,
                            mpi_handle(comm())),
              "MPI_Allreduce");
  }
}

void MpiCollectives::reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                                    const std::vector<std::int64_t>& sizes, Reduction op) const {
  const auto what = reduced(input, op);
  auto* const sums = static_cast<std::byte*>(output.data_ptr());
  const InCollective waiting(comm(), Collective::reduce_scatter, input.nbytes());
  if (ring_pays(input.numel() * what.bytes, comm().size()))
    return ring_reduce_scatter(comm(), what, sums,
                               static_cast<const std::byte*>(input.const_data_ptr()), sizes,
                               std::min(ring_segment, largest_));
  for (const auto& round : rounds_of(sizes, largest_ / what.bytes)) {
    const auto sent = round.packed(input);
    check_mpi(MPI_Reduce_scatter(sent.const_data_ptr(),
                                 sums + std::min(round.done, output.numel()) * what.bytes,
                                 round.counts.data(), what.type, what.op, mpi_handle(comm())),
              "MPI_Reduce_scatter");
  }
}

void MpiCollectives::all_gather(const at::Tensor& output, const at::Tensor& input,
                                const std::vector<std::int64_t>& sizes) const {
  const auto blocks = bytes_of(output);
  std::vector<std::int64_t> lengths;
  for (const auto size : sizes)
    lengths.push_back(size * static_cast<std::int64_t>(output.element_size()));
  const auto mine = static_cast<std::size_t>(comm().rank());
  const InCollective waiting(comm(), Collective::all_gather, input.nbytes());
  for (const auto& round : rounds_of(lengths, largest_)) {
    const auto received =
        round.is_whole ? blocks : at::empty({round.total()}, at::TensorOptions().dtype(at::kByte));
    const auto* at =
        static_cast<const std::byte*>(input.const_data_ptr()) + std::min(round.done, lengths[mine]);
    check_mpi(
        MPI_Allgatherv(at, round.counts[mine], MPI_BYTE, received.data_ptr(), round.counts.data(),
                       round.offsets.data(), MPI_BYTE, mpi_handle(comm())),
        "MPI_Allgatherv");
    if (!round.is_whole) round.unpack(received, blocks);
  }
}

void MpiCollectives::all_to_all(const std::vector<at::Tensor>& outputs,
                                const std::vector<at::Tensor>& inputs) const {
  const Blocks sent(inputs, largest_);
  const Blocks received(outputs, largest_);
  const std::vector<int> nowhere(inputs.size(), 0);  // the types hold addresses
  std::size_t bytes = 0;
  for (const auto& input : inputs) bytes += input.nbytes();
  const InCollective waiting(comm(), Collective::all_to_all, bytes);
  check_mpi(MPI_Alltoallw(MPI_BOTTOM, sent.counts(), nowhere.data(), sent.types(), MPI_BOTTOM,
                          received.counts(), nowhere.data(), received.types(), mpi_handle(comm())),
            "MPI_Alltoallw");
}

void MpiCollectives::broadcast(const at::Tensor& tensor, int from) const {
  comm().broadcast(tensor.data_ptr(), tensor.nbytes(), from);
}

}  // namespace attune::parallel
