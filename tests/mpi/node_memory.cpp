// Tensors that the ranks of a node hold once. Every rank of the test is on one node; where it takes
// several, groups of ranks stand for them.
#include "parallel/node_memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <torch/torch.h>

#include <fstream>

#include "core/signals.hpp"
#include "parallel/mpi.hpp"
#include "weights/shared_weights.hpp"

namespace attune {
namespace {

using parallel::NodeMemory;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

constexpr std::int64_t rows = 300;

at::Tensor some_values(std::int64_t columns = 700) {
  torch::manual_seed(3);
  return torch::randn({rows, columns});
}

/// kB of the named line, over this process's mappings of such memory.
std::int64_t mapped(const std::string& line_name) {
  std::ifstream lines("/proc/self/smaps");
  std::int64_t sum = 0;
  bool is_ours = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.find('-') < line.find(' ')) is_ours = line.find("attune-weights") != line.npos;
    if (is_ours && line.starts_with(line_name + ":"))
      sum += std::stoll(line.substr(line_name.size() + 1));
  }
  return sum;
}

TEST(NodeMemory, HoldsTheFirstRanksValuesOnEveryRank) {
  NodeMemory memory(all());
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble})
    for (const bool turned : {false, true}) {
      const auto values = turned ? some_values().t() : some_values();
      const auto placed = memory.place(all().root() ? values : at::Tensor(), dtype);
      EXPECT_TRUE(placed.is_contiguous());
      EXPECT_TRUE(placed.equal(values.to(dtype)));
      EXPECT_EQ(NodeMemory::holds(placed), all().size() > 1);
      EXPECT_EQ(NodeMemory::holds(placed.view(-1)), all().size() > 1);
    }
  EXPECT_EQ(memory.obstacle(), "");
}

TEST(NodeMemory, CopiesSmallTensorsAndThoseWithoutValues) {
  NodeMemory memory(all());
  for (const auto& values : {torch::randn({3, 5}), torch::randn({0, 7}), torch::tensor(2.5F)}) {
    const auto placed = memory.place(values, at::kFloat);
    EXPECT_FALSE(NodeMemory::holds(placed));
    EXPECT_EQ(placed.sizes(), values.sizes());
  }
  EXPECT_FALSE(NodeMemory::holds(at::Tensor()));
  EXPECT_FALSE(NodeMemory::holds(torch::ones({1 << 20})));
}

TEST(NodeMemory, IsThereOnceForAllRanks) {
  if (all().size() == 1) return;
  NodeMemory memory(all());
  const auto placed = memory.place(some_values(7000), at::kFloat);
  const auto kilobytes = static_cast<double>(placed.nbytes()) / 1024;
  EXPECT_GE(static_cast<double>(mapped("Rss")), 0.99 * kilobytes)
      << "what a rank holds is known before it reads";
  all().barrier();
  const auto pss = all().sum(static_cast<double>(mapped("Pss")));
  const auto own = all().sum(static_cast<double>(mapped("Anonymous")));
  all().barrier();
  EXPECT_NEAR(pss, kilobytes, 0.05 * kilobytes);
  EXPECT_EQ(own, 0);
}

TEST(NodeMemory, KeepsWhatOneRankWritesFromTheOthers) {
  NodeMemory memory(all());
  const auto values = some_values();
  const auto placed = memory.place(values, at::kFloat);
  if (all().rank() == all().size() - 1) placed.select(0, 1).fill_(7);
  all().barrier();
  if (all().rank() == all().size() - 1)
    EXPECT_TRUE(placed.select(0, 1).eq(7).all().item<bool>());
  else
    EXPECT_TRUE(placed.equal(values));
}

/// Of several dtypes, one turned, one small, one without elements.
std::vector<at::Tensor> to_be_trained() {
  return {some_values(),       torch::randn({3, 5}), torch::ones({0, 7}),
          some_values(33).t(), torch::tensor(2.5F),  some_values(17).to(at::kBFloat16),
          torch::arange(12)};
}

TEST(NodeMemory, HoldsOpenTensorsAsTheyWere) {
  NodeMemory memory(all());
  const auto values = to_be_trained();
  const auto placed = memory.place_open(values);
  ASSERT_EQ(placed.size(), all().size() > 1 ? values.size() : 0);
  for (std::size_t i = 0; i < placed.size(); ++i) {
    EXPECT_TRUE(placed[i].equal(values[i])) << i;
    EXPECT_EQ(placed[i].scalar_type(), values[i].scalar_type());
    EXPECT_EQ(placed[i].strides(), values[i].strides());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(placed[i].data_ptr()) % 64, 0u);
    EXPECT_TRUE(NodeMemory::holds(placed[i]));
    EXPECT_FALSE(placed[i].is_alias_of(placed[0]) && i > 0);
  }
  EXPECT_EQ(memory.obstacle(), "");
}

TEST(NodeMemory, OpenTensorsShowWhatEveryRankWrites) {
  if (all().size() == 1) return;
  NodeMemory memory(all());
  const auto placed = memory.place_open({some_values(), torch::zeros({8})});
  placed[1][all().rank()].fill_(all().rank() + 1);
  placed[0].select(0, all().rank()).fill_(7);
  all().barrier();
  for (int rank = 0; rank < all().size(); ++rank) {
    EXPECT_EQ(placed[1][rank].item<int>(), rank + 1);
    EXPECT_TRUE(placed[0].select(0, rank).eq(7).all().item<bool>());
  }
  EXPECT_TRUE(placed[0].select(0, rows - 1).equal(some_values().select(0, rows - 1)));
  const auto kilobytes = static_cast<double>(placed[0].nbytes()) / 1024;
  const auto pss = all().sum(static_cast<double>(mapped("Pss")));
  all().barrier();
  EXPECT_NEAR(pss, kilobytes, 0.05 * kilobytes);
}

TEST(NodeMemory, IsFreedWithTheLastOpenTensor) {
  NodeMemory memory(all());
  auto placed = memory.place_open({some_values(), some_values()});
  if (placed.empty()) return;
  placed.erase(placed.begin());
  EXPECT_GT(mapped("Size"), 0);
  EXPECT_TRUE(placed[0].equal(some_values()));
  placed.clear();
  EXPECT_EQ(mapped("Size"), 0);
}

TEST(NodeMemory, IsFreedWithTheLastTensor) {
  if (all().size() == 1) return;
  NodeMemory memory(all());
  {
    auto placed = memory.place(some_values(), at::kFloat);
    const auto part = placed.select(0, 2);
    placed = at::Tensor();
    EXPECT_GT(mapped("Size"), 0) << "a view of it is left";
  }
  EXPECT_EQ(mapped("Size"), 0);
  std::ifstream maps("/proc/self/maps");
  const std::string text{std::istreambuf_iterator<char>(maps), {}};
  EXPECT_EQ(text.find("attune-weights"), std::string::npos);
}

/// The first rank, or the last one, may open no more files.
TEST(NodeMemory, CopiesWhereNoneCanBeShared) {
  if (all().size() == 1) return;
  for (const int without : {0, all().size() - 1}) {
    NodeMemory memory(all());
    const auto values = some_values();
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    if (all().rank() == without) {
      const int next = ::dup(0);
      ::close(next);
      const rlimit open_ones{static_cast<rlim_t>(next), before.rlim_max};
      ::setrlimit(RLIMIT_NOFILE, &open_ones);
    }
    const auto placed = memory.place(values, at::kFloat);
    NodeMemory for_open(all());
    EXPECT_TRUE(for_open.place_open({values}).empty());
    EXPECT_THAT(for_open.obstacle(), HasSubstr("Too many open files"));
    ::setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_THAT(memory.obstacle(), HasSubstr("Too many open files"));
    EXPECT_TRUE(placed.equal(values));
    EXPECT_FALSE(NodeMemory::holds(placed));
    EXPECT_TRUE(memory.place(values, at::kBFloat16).equal(values.to(at::kBFloat16)))
        << "it is not tried again";
  }
}

/// As on a full disk, where the process may write no larger file.
TEST(NodeMemory, CopiesWhereFilesMayNotBeAsLarge) {
  if (all().size() == 1) return;
  let_writes_fail();
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4096, before.rlim_max};
  NodeMemory memory(all());
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto placed = memory.place(some_values(), at::kFloat);
  const auto open = NodeMemory(all()).place_open({some_values()});
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(memory.obstacle(), HasSubstr("File too large"));
  EXPECT_TRUE(placed.equal(some_values()) && open.empty());
}

class CountedReads final : public WeightSource {
 public:
  explicit CountedReads(int& reads) : reads_(reads) {}
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  at::Tensor read(const std::string& name) override {
    ++reads_;
    if (name == "codes") return torch::zeros({2}, at::kByte);
    return some_values();
  }

 private:
  int& reads_;
  std::vector<TensorInfo> tensors_{{"w", {rows, 700}, "F32", 4 * rows * 700},
                                   {"codes", {2}, "U8", 2}};
};

/// Ranks 0 and 1 on one node, the others each on its own.
TEST(SharedWeights, ReachEveryNodeAndAreHeldOnceThere) {
  const auto node = all().split(std::max(0, all().rank() - 1));
  int reads = 0;
  SharedWeights weights(all().root() ? std::make_unique<CountedReads>(reads) : nullptr, all(),
                        std::make_shared<NodeMemory>(node));
  for (const bool is_transposed : {false, true}) {
    const auto read = weights.read_as("w", at::kBFloat16, is_transposed);
    const auto wanted = some_values().to(at::kBFloat16);
    EXPECT_TRUE(read.equal(is_transposed ? wanted.t() : wanted));
    EXPECT_TRUE(read.is_contiguous());
    EXPECT_EQ(NodeMemory::holds(read), node.size() > 1);
  }
  EXPECT_EQ(all().sum(std::int64_t{reads}), 2) << "once for all ranks, each time";
  try {
    weights.read_as("codes", at::kFloat, false);
    ADD_FAILURE() << "codes were taken for numbers";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("'codes' as U8, the codes of an unsupported quantization"));
  }
}

}  // namespace
}  // namespace attune
