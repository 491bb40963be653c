// The c10d backend on 1, 2, 3 and 4 ranks: every expectation is what one process computes of all
// ranks' inputs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <numeric>

#include "parallel/backend.hpp"
#include "parallel/mpi.hpp"

namespace {

using attune::Comm;
using attune::parallel::make_process_group;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

int ranks() { return all().size(); }

std::string error_of(const c10::intrusive_ptr<c10d::Work>& work) {
  try {
    work->wait();
  } catch (const std::exception& error) {
    EXPECT_TRUE(work->getFuture()->hasError());
    return error.what();
  }
  return "";
}

/// Small whole numbers, exact in every type, that differ by rank and by block.
at::Tensor block(int from, int to, std::int64_t size, at::ScalarType type) {
  return at::arange(size, at::kLong).add(10 * from + 3 * to).remainder(7).to(type);
}

std::vector<at::Tensor> blocks_of(int from, const std::vector<std::int64_t>& sizes,
                                  at::ScalarType type) {
  std::vector<at::Tensor> all;
  for (int to = 0; to < ranks(); ++to)
    all.push_back(block(from, to, sizes[static_cast<std::size_t>(to)], type));
  return all;
}

/// The sum over all ranks of their blocks for this one.
at::Tensor summed(std::int64_t size, at::ScalarType type) {
  auto sum = at::zeros({size}, at::kDouble);
  for (int from = 0; from < ranks(); ++from) sum += block(from, all().rank(), size, at::kDouble);
  return sum.to(type);
}

/// Sizes that differ by rank; one of them is 0.
std::vector<std::int64_t> uneven() {
  std::vector<std::int64_t> sizes;
  for (int rank = 0; rank < ranks(); ++rank) sizes.push_back(rank == 1 ? 0 : 11 * rank + 5);
  return sizes;
}

std::vector<std::int64_t> even(std::int64_t size) {
  return std::vector<std::int64_t>(static_cast<std::size_t>(ranks()), size);
}

std::int64_t mine(const std::vector<std::int64_t>& sizes) {
  return sizes[static_cast<std::size_t>(all().rank())];
}

constexpr at::ScalarType moved[] = {at::kFloat,        at::kDouble, at::kBFloat16,     at::kHalf,
                                    at::kByte,         at::kChar,   at::kShort,        at::kInt,
                                    at::kLong,         at::kBool,   at::kComplexFloat, at::kUInt16,
                                    at::kFloat8_e4m3fn};
constexpr at::ScalarType reduced[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kByte,
                                      at::kChar,  at::kShort,  at::kInt,      at::kLong};

/// Bytes in one call of MPI: one that no message reaches, and one that cuts every message into
/// pieces.
class Backend : public testing::TestWithParam<std::size_t> {
 protected:
  const c10::intrusive_ptr<c10d::ProcessGroup> group =
      make_process_group(all(), c10::kCPU, attune::parallel::Transport::automatic, GetParam());
};
INSTANTIATE_TEST_SUITE_P(Largest, Backend, testing::Values(std::size_t{1} << 30, 64),
                         testing::PrintToStringParamName());

// ---- all_reduce

TEST_P(Backend, AllReducesWhatIsLongerThanAMessage) {
  for (const auto type : reduced) {
    std::vector<at::Tensor> tensors{block(all().rank(), 0, 1000, type)};
    group->allreduce(tensors)->wait();
    auto expected = at::zeros({1000}, at::kDouble);
    for (int from = 0; from < ranks(); ++from) expected += block(from, 0, 1000, at::kDouble);
    EXPECT_TRUE(tensors[0].equal(expected.to(type))) << c10::toString(type);
  }
}

// ---- reduce_scatter

TEST_P(Backend, ReduceScattersOneTensorOfEveryType) {
  for (const auto type : reduced) {
    auto input = at::cat(blocks_of(all().rank(), even(37), type)),
         output = at::empty({37}, input.options());
    group->reduce_scatter_single(output, input)->wait();
    EXPECT_TRUE(output.equal(summed(37, type))) << c10::toString(type);
  }
}

TEST_P(Backend, ReduceScattersListsOfUnequalAndNoLength) {
  for (const auto& sizes : {uneven(), even(0), even(3)}) {
    std::vector<at::Tensor> outputs{at::empty({mine(sizes)}, at::kFloat)};
    std::vector<std::vector<at::Tensor>> inputs{blocks_of(all().rank(), sizes, at::kFloat)};
    group->reduce_scatter(outputs, inputs)->wait();
    EXPECT_TRUE(outputs[0].equal(summed(mine(sizes), at::kFloat)));
  }
}

TEST_P(Backend, ReduceScattersWithEveryOperation) {
  c10d::ReduceScatterOptions options;
  options.reduceOp = c10d::ReduceOp::MAX;
  auto input = at::cat(blocks_of(all().rank(), even(20), at::kDouble)),
       output = at::empty({20}, at::kDouble);
  group->reduce_scatter_single(output, input, options)->wait();
  auto expected = block(0, all().rank(), 20, at::kDouble);
  for (int from = 1; from < ranks(); ++from)
    expected = at::maximum(expected, block(from, all().rank(), 20, at::kDouble));
  EXPECT_TRUE(output.equal(expected));
}

TEST_P(Backend, ReduceScattersIntoAPartOfItsInput) {
  auto input = at::cat(blocks_of(all().rank(), even(8), at::kFloat));
  auto output = input.narrow(0, all().rank() * 8, 8);
  group->reduce_scatter_single(output, input)->wait();
  EXPECT_TRUE(output.equal(summed(8, at::kFloat)));
}

TEST_P(Backend, ReduceScattersTensorsOfListsThatAreNotContiguous) {
  const auto of = [](int from, int to) {
    return at::arange(12, at::kFloat).view({3, 4}).add(100 * from + to);
  };
  std::vector<at::Tensor> outputs{at::empty({3, 4}, at::kFloat).t()};
  std::vector<std::vector<at::Tensor>> inputs(1);
  for (int to = 0; to < ranks(); ++to) inputs[0].push_back(of(all().rank(), to).t());
  group->reduce_scatter(outputs, inputs)->wait();
  auto expected = at::zeros({3, 4});
  for (int from = 0; from < ranks(); ++from) expected += of(from, all().rank());
  EXPECT_TRUE(outputs[0].equal(expected.t()));
}

// ---- all_gather

TEST_P(Backend, AllGathersOneTensorOfEveryType) {
  for (const auto type : moved) {
    auto input = block(all().rank(), 0, 29, at::kLong).to(type),
         output = at::empty({29 * ranks()}, input.options());
    group->all_gather_single(output, input)->wait();
    std::vector<at::Tensor> expected;
    for (int from = 0; from < ranks(); ++from)
      expected.push_back(block(from, 0, 29, at::kLong).to(type));
    EXPECT_TRUE(output.view(at::kByte).equal(at::cat(expected).view(at::kByte)))
        << c10::toString(type);
  }
}

TEST_P(Backend, AllGathersAPartIntoItsPlaceInTheWhole) {
  auto output = at::zeros({6 * ranks()}, at::kFloat);
  auto input = output.narrow(0, 6 * all().rank(), 6);
  input.fill_(all().rank() + 1);
  group->all_gather_single(output, input)->wait();
  for (int from = 0; from < ranks(); ++from)
    EXPECT_TRUE(output.narrow(0, 6 * from, 6).eq(from + 1).all().item<bool>());
}

TEST_P(Backend, AllGathersListsOfUnequalLengthAndOfTensorsThatAreNotContiguous) {
  const auto sizes = uneven();
  std::vector<at::Tensor> inputs{at::stack({block(all().rank(), 0, mine(sizes), at::kInt),
                                            block(all().rank(), 1, mine(sizes), at::kInt)})
                                     .t()};
  std::vector<std::vector<at::Tensor>> outputs(1);
  for (const auto size : sizes) outputs[0].push_back(at::empty({2, size}, at::kInt).t());
  group->allgather(outputs, inputs)->wait();
  for (int from = 0; from < ranks(); ++from) {
    const auto size = sizes[static_cast<std::size_t>(from)];
    EXPECT_TRUE(outputs[0][static_cast<std::size_t>(from)].equal(
        at::stack({block(from, 0, size, at::kInt), block(from, 1, size, at::kInt)}).t()));
  }
}

// ---- all_to_all

TEST_P(Backend, ExchangesEqualPartsOfEveryType) {
  for (const auto type : moved) {
    auto input = at::cat(blocks_of(all().rank(), even(23), at::kLong)).to(type),
         output = at::empty_like(input);
    std::vector<std::int64_t> none;
    group->all_to_all_single(output, input, none, none)->wait();
    std::vector<at::Tensor> expected;
    for (int from = 0; from < ranks(); ++from)
      expected.push_back(block(from, all().rank(), 23, at::kLong).to(type));
    EXPECT_TRUE(output.view(at::kByte).equal(at::cat(expected).view(at::kByte)))
        << c10::toString(type);
  }
}

/// Rows that rank `from` has for rank `to`: 0 for some pairs.
std::int64_t rows(int from, int to) { return (2 * from + to) % 4; }

TEST_P(Backend, ExchangesRowsInUnequalNumbers) {
  std::vector<std::int64_t> sent;
  std::vector<std::int64_t> received;
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> expected;
  const auto table = [](int from, int to) {
    return block(from, to, 5 * rows(from, to), at::kFloat).view({rows(from, to), 5});
  };
  for (int other = 0; other < ranks(); ++other) {
    sent.push_back(rows(all().rank(), other));
    received.push_back(rows(other, all().rank()));
    inputs.push_back(table(all().rank(), other));
    expected.push_back(table(other, all().rank()));
  }
  auto input = at::cat(inputs);
  auto output = at::empty_like(at::cat(expected));
  group->all_to_all_single(output, input, received, sent)->wait();
  EXPECT_TRUE(output.equal(at::cat(expected)));
}

TEST_P(Backend, ExchangesListsOfTensors) {
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> outputs;
  for (int other = 0; other < ranks(); ++other) {
    inputs.push_back(
        at::full({rows(all().rank(), other), 3}, all().rank() * 10 + other, at::kLong).t());
    outputs.push_back(at::empty({rows(other, all().rank()), 3}, at::kLong).t());
  }
  group->alltoall(outputs, inputs)->wait();
  for (int other = 0; other < ranks(); ++other)
    EXPECT_TRUE(outputs[static_cast<std::size_t>(other)].equal(
        at::full({rows(other, all().rank()), 3}, other * 10 + all().rank(), at::kLong).t()));
}

// ---- What all of them keep

TEST_P(Backend, KeepsTheOrderOfManyCollectivesInFlight) {
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> scattered;
  std::vector<at::Tensor> gathered;
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  for (int i = 0; i < 50; ++i) {
    inputs.push_back(at::full({ranks() * (i % 5 + 1)}, i, at::kFloat));
    scattered.push_back(at::empty({i % 5 + 1}, at::kFloat));
    gathered.push_back(at::empty_like(inputs.back()));
    works.push_back(group->reduce_scatter_single(scattered.back(), inputs.back()));
    works.push_back(group->all_gather_single(gathered.back(), scattered.back()));
  }
  for (auto& work : works) work->getFuture()->wait();
  for (std::size_t i = 0; i < gathered.size(); ++i)
    EXPECT_TRUE(gathered[i].eq(static_cast<double>(i) * ranks()).all().item<bool>()) << i;
}

TEST_P(Backend, RefusesWhatDoesNotFitOnTheFuture) {
  auto output = at::empty({4}, at::kFloat);
  auto input = at::empty({4 * ranks() + 1}, at::kFloat);
  EXPECT_THAT(error_of(group->reduce_scatter_single(output, input)),
              HasSubstr("reduce_scatter: an input of"));
  EXPECT_THAT(error_of(group->all_gather_single(input, output)),
              HasSubstr("all_gather: an output of"));
  auto doubles = at::empty({4 * ranks()}, at::kDouble);
  EXPECT_THAT(error_of(group->reduce_scatter_single(output, doubles)), HasSubstr("together"));
  auto transposed = at::empty({2, 2 * ranks()}, at::kFloat).t();
  if (ranks() > 1) {
    EXPECT_THAT(error_of(group->reduce_scatter_single(output, transposed)),
                HasSubstr("must be contiguous"));
  }
  auto complex = at::empty({4}, at::kComplexFloat),
       complexes = at::empty({4 * ranks()}, at::kComplexFloat);
  EXPECT_THAT(error_of(group->reduce_scatter_single(complex, complexes)),
              HasSubstr("ComplexFloat"));
  std::vector<std::int64_t> wrong(static_cast<std::size_t>(ranks()), 1);
  std::vector<std::int64_t> none;
  auto rows = at::empty({2 * ranks()}, at::kFloat);
  auto same = at::empty({2 * ranks()}, at::kFloat);
  EXPECT_THAT(error_of(group->all_to_all_single(rows, same, wrong, none)),
              HasSubstr("Split sizes"));
  std::vector<at::Tensor> few(static_cast<std::size_t>(ranks() + 1), at::empty({1}));
  std::vector<at::Tensor> more = few;
  EXPECT_THAT(error_of(group->alltoall(few, more)), HasSubstr("tensors for"));
  group->barrier()->wait();  // and goes on
}

// ---- Counting

/// What `work` adds to this rank's traffic.
attune::parallel::TrafficByKind counted(const std::function<void()>& work) {
  auto before = attune::parallel::traffic_of_rank(all());
  work();
  auto after = attune::parallel::traffic_of_rank(all());
  for (auto& [name, calls] : after) {
    calls.calls -= before[name].calls;
    calls.bytes -= before[name].bytes;
  }
  std::erase_if(after, [](const auto& item) { return item.second.calls == 0; });
  return after;
}

TEST_P(Backend, CountsCallsAndInputsHoweverTheyAreCut) {
  const auto added = counted([&] {
    std::vector<at::Tensor> halves{at::ones({100}, at::kBFloat16)};
    group->allreduce(halves)->wait();
    auto part = at::ones({10}, at::kDouble);
    auto whole = at::ones({10 * ranks()}, at::kDouble);
    group->reduce_scatter_single(part, whole)->wait();
    group->all_gather_single(whole, part)->wait();
    group->all_gather_single(whole, part)->wait();
    auto received = at::empty_like(whole);
    std::vector<std::int64_t> none;
    group->all_to_all_single(received, whole, none, none)->wait();
    std::vector<at::Tensor> sent{at::ones({7}, at::kByte)};
    group->broadcast(sent)->wait();
    group->barrier()->wait();
  });
  if (ranks() == 1) {
    EXPECT_TRUE(added.empty());
    return;
  }
  const std::int64_t n = ranks();
  const attune::parallel::TrafficByKind expected{{"all_reduce", {1, 400}},
                                                 {"reduce_scatter", {1, 80 * n}},
                                                 {"all_gather", {2, 160}},
                                                 {"all_to_all", {1, 80 * n}},
                                                 {"broadcast", {1, all().root() ? 7 : 0}},
                                                 {"barrier", {1, 0}}};
  EXPECT_EQ(added, expected);
}

TEST(Traffic, OfACommCountsItsPartsAndIsSummedOverRanks) {
  const auto half = all().split(all().rank() % 2);
  const auto added = counted([&] {
    half.sum(1.0);
    half.max(std::int64_t{1});
    all().gather("three");
    all().broadcast(std::string("four"), ranks() - 1);
  });
  if (ranks() == 1) {
    EXPECT_TRUE(added.empty());
    return;
  }
  const bool is_source = all().rank() == ranks() - 1;
  attune::parallel::TrafficByKind expected{{"all_gather", {1, 5}},
                                           {"broadcast", {2, is_source ? 8 + 4 : 0}}};
  if (half.size() > 1) expected["all_reduce"] = {2, 16};
  EXPECT_EQ(added, expected);
  const auto mine = attune::parallel::traffic_of_rank(all()),
             total = attune::parallel::traffic_of_ranks(all());
  const auto bytes = all().sum(mine.at("all_gather").bytes);
  EXPECT_EQ(total.at("all_gather").bytes, bytes);
}

}  // namespace
