// Sums around a ring of 2 to 5 ranks, against MPI's own.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <numeric>

#include "parallel/mpi.hpp"
#include "parallel/mpi_collectives.hpp"
#include "parallel/ring.hpp"

namespace {

using attune::Comm;
using attune::parallel::Reduced;
using attune::parallel::ring_all_reduce;
using attune::parallel::ring_reduce_scatter;

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

const Reduced floats{MPI_FLOAT, MPI_SUM, 4};

/// Whole numbers, exact in every order of addition, that differ by rank.
std::vector<float> numbers(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((i * 7 + static_cast<std::size_t>(all().rank()) * 13) % 101);
  return values;
}

std::vector<float> summed_by_mpi(std::vector<float> values) {
  MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM,
                attune::mpi_handle(all()));
  return values;
}

std::byte* bytes(std::vector<float>& values) { return reinterpret_cast<std::byte*>(values.data()); }

/// Bytes of a message: one element, a few, an odd number, more than there are.
constexpr std::int64_t segments[] = {4, 12, 28, 1 << 20};

TEST(Ring, SumsInPlaceWhateverTheSizes) {
  for (const auto segment : segments)
    for (const std::int64_t count : {1, 2, 3, 7, 64, 1001}) {
      auto values = numbers(count);
      const auto expected = summed_by_mpi(values);
      ring_all_reduce(all(), floats, bytes(values), count, segment);
      EXPECT_EQ(values, expected) << count << " elements, messages of " << segment;
    }
}

TEST(Ring, ScattersBlocksOfAnySizesAndLeavesItsInput) {
  for (const auto segment : segments)
    for (const std::int64_t most : {1, 5, 333}) {
      std::vector<std::int64_t> sizes;  // one of them is 0
      for (std::int64_t rank = 0; rank < all().size(); ++rank)
        sizes.push_back(rank == 1 ? 0 : (rank * 11) % most + 1);
      const auto count = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
      auto values = numbers(count);
      const auto before = values;
      const auto all_sums = summed_by_mpi(values);
      const auto mine = sizes.begin() + all().rank();
      const auto begin = all_sums.begin() + std::accumulate(sizes.begin(), mine, std::int64_t{0});
      std::vector<float> sums(static_cast<std::size_t>(*mine));
      ring_reduce_scatter(all(), floats, bytes(sums), bytes(values), sizes, segment);
      EXPECT_EQ(sums, std::vector(begin, begin + *mine));
      EXPECT_EQ(values, before);
    }
}

TEST(Ring, ReducesByOtherOperations) {
  auto values = numbers(100);
  auto expected = values;
  MPI_Allreduce(MPI_IN_PLACE, expected.data(), 100, MPI_FLOAT, MPI_MAX, attune::mpi_handle(all()));
  ring_all_reduce(all(), {MPI_FLOAT, MPI_MAX, 4}, bytes(values), 100, 8);
  EXPECT_EQ(values, expected);
}

/// Results must not depend on how messages happened to meet.
TEST(Ring, AddsInOneOrder) {
  torch::manual_seed(all().rank());
  const auto values = at::randn({100003});
  const auto sum = [&] {
    auto copy = values.clone();
    ring_all_reduce(all(), floats, static_cast<std::byte*>(copy.data_ptr()), copy.numel(), 4096);
    return copy;
  };
  const auto first = sum();
  for (int times = 0; times < 5; ++times) EXPECT_TRUE(at::equal(sum(), first));
}

/// What the collectives choose for tensors of this size.
TEST(Ring, ServesLargeTensors) {
  const attune::parallel::MpiCollectives collectives(attune::duplicate(all()),
                                                     attune::parallel::largest_message);
  const std::int64_t count = 1'000'003;
  const auto input = at::arange(count).remainder(97).to(at::kDouble).add(all().rank());
  const auto n = all().size();
  const at::Tensor expected = at::arange(count).remainder(97).to(at::kDouble) * n + n * (n - 1) / 2;
  const auto sum = input.clone();
  collectives.all_reduce(sum, c10d::ReduceOp::SUM);
  EXPECT_TRUE(at::equal(sum, expected));

  std::vector<std::int64_t> sizes(static_cast<std::size_t>(n), count / n);
  sizes.back() += count % n;
  const auto begin = count / n * all().rank();
  const auto mine = at::empty({sizes[static_cast<std::size_t>(all().rank())]}, at::kDouble);
  collectives.reduce_scatter(mine, input, sizes, c10d::ReduceOp::SUM);
  EXPECT_TRUE(at::equal(mine, expected.narrow(0, begin, mine.numel())));
}

}  // namespace
