// Communication and data parallelism on 1 to 4 ranks. Every expectation compares with what one
// process computes alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <numeric>

#include "parallel/backend.hpp"
#include "parallel/gradient_sum.hpp"
#include "parallel/gradients.hpp"
#include "parallel/mpi.hpp"
#include "parallel/wide_gradients.hpp"
#include "weights/shared_weights.hpp"

namespace {

using attune::Comm;
using attune::Error;
using attune::Fault;
using attune::parallel::GradientReducer;
using attune::parallel::NamedTensors;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

/// The text of the Error or Fault that work throws; "" when it throws neither.
template <class Kind>
std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Kind& error) {
    return error.what();
  }
  return "";
}

// ---- Comm

TEST(Comm, OfThisProcessAloneNeedsNoOtherRank) {
  const Comm alone;
  EXPECT_EQ(alone.size(), 1);
  EXPECT_EQ(alone.sum(2.5), 2.5);
  EXPECT_EQ(alone.gather("x"), std::vector<std::string>{"x"});
  EXPECT_EQ(attune::mpi_handle(alone), MPI_COMM_SELF);
}

TEST(Comm, SumsAndMaximaAreOverAllRanks) {
  const auto n = all().size();
  EXPECT_EQ(all().sum(std::int64_t{all().rank() + 1}), n * (n + 1) / 2);
  EXPECT_EQ(all().sum(0.5), 0.5 * n);
  EXPECT_EQ(all().max(std::int64_t{-all().rank()}), 0);
}

TEST(Comm, KnowsTheRanksOfItsNode) {
  EXPECT_EQ(all().split_by_node().size(), all().size());
  EXPECT_EQ(all().split_by_node().rank(), all().rank());
}

TEST(Comm, BroadcastsFromAnyRank) {
  for (int from = 0; from < all().size(); ++from) {
    const auto text = all().broadcast(
        all().rank() == from ? "from " + std::to_string(from) : "something longer than that", from);
    EXPECT_EQ(text, "from " + std::to_string(from));
  }
  EXPECT_EQ(all().broadcast(std::string()), "");
}

TEST(Comm, GathersTextsOfUnequalLengthByRank) {
  const auto texts =
      all().gather(std::string(static_cast<std::size_t>(all().rank()) * 3, 'a' + all().rank()));
  ASSERT_EQ(static_cast<int>(texts.size()), all().size());
  for (int rank = 0; rank < all().size(); ++rank)
    EXPECT_EQ(texts[rank], std::string(static_cast<std::size_t>(rank) * 3, 'a' + rank));
}

TEST(Agree, LetsAllRanksGoOnWhenNoneFails) {
  int runs = 0;
  EXPECT_NO_THROW(all().agree([&] { ++runs; }));
  EXPECT_EQ(runs, 1);
}

TEST(Agree, ThrowsTheMistakeOfOneRankOnAll) {
  const int last = all().size() - 1;
  const auto text = message_of<Error>([&] {
    all().agree([&] {
      if (all().rank() == last) attune::fail("run.toml: no such key");
    });
  });
  EXPECT_EQ(text, last == 0
                      ? "run.toml: no such key"
                      : fmt::format("rank {} of {}: run.toml: no such key", last, all().size()));
}

TEST(Agree, NamesNoRankWhenAllSayTheSame) {
  EXPECT_EQ(message_of<Error>([] { all().agree([] { attune::fail("no steps"); }); }), "no steps");
}

TEST(Agree, TakesTheKindAndTextOfTheLowestRankThatFails) {
  const auto work = [] {
    if (all().rank() == 0) throw std::runtime_error("disk full");
    attune::fail("later rank");
  };
  EXPECT_THAT(message_of<Fault>([&] { all().agree(work); }), HasSubstr("disk full"));
}

TEST(Agree, WorksAgainAfterAFailure) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_THROW(all().agree([] { attune::fail("again"); }), Error);
    EXPECT_NO_THROW(all().agree([] {}));
  }
}

TEST(OnRoot, RunsOnceAndSharesItsMistakeInItsOwnWords) {
  int runs = 0;
  attune::on_root(all(), [&] { ++runs; });
  EXPECT_EQ(all().sum(std::int64_t{runs}), 1);
  EXPECT_EQ(
      message_of<Error>([] { attune::on_root(all(), [] { attune::fail("a.csv: is empty"); }); }),
      "a.csv: is empty");
}

TEST(Mpi, ErrorsComeAsFaultsWithItsOwnText) {
  int value = 0;
  const auto text = message_of<Fault>([&] {
    attune::check_mpi(MPI_Bcast(&value, 1, MPI_INT, all().size() + 5, attune::mpi_handle(all())),
                      "MPI_Bcast");
  });
  EXPECT_THAT(text, HasSubstr("MPI_Bcast failed: MPI_ERR_ROOT"));
}

// ---- The backend

at::Tensor of_rank(int rank, at::ScalarType type) {
  return at::arange(1, 1001, at::kDouble).mul(rank + 1).remainder(17).to(type);
}

class AllReduce : public testing::TestWithParam<at::ScalarType> {};

TEST_P(AllReduce, GivesTheSerialSum) {
  const auto group = attune::parallel::make_process_group(all());
  auto expected = at::zeros({1000}, at::kDouble);
  for (int rank = 0; rank < all().size(); ++rank)
    expected += of_rank(rank, GetParam()).to(at::kDouble);

  std::vector<at::Tensor> tensors{of_rank(all().rank(), GetParam())};
  group->allreduce(tensors)->wait();

  // small whole numbers: exact in every type
  EXPECT_TRUE(tensors[0].to(at::kDouble).equal(expected));
}

INSTANTIATE_TEST_SUITE_P(Types, AllReduce,
                         testing::Values(at::kFloat, at::kDouble, at::kBFloat16, at::kHalf,
                                         at::kInt, at::kLong, at::kByte),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST(Backend, ReducesTensorsThatAreNotContiguous) {
  const auto group = attune::parallel::make_process_group(all());
  std::vector<at::Tensor> tensors{at::arange(6, at::kFloat).view({2, 3}).t()};
  group->allreduce(tensors)->wait();
  EXPECT_TRUE(tensors[0].equal(at::arange(6, at::kFloat).view({2, 3}).t() * all().size()));
}

TEST(Backend, ManyReductionsInFlightKeepTheirOrder) {
  const auto group = attune::parallel::make_process_group(all());
  std::vector<std::vector<at::Tensor>> tensors;
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  for (int i = 0; i < 200; ++i) tensors.push_back({at::full({i % 7 + 1}, i, at::kFloat)});
  for (auto& tensor : tensors) works.push_back(group->allreduce(tensor));
  for (auto& work : works) work->getFuture()->wait();
  for (int i = 0; i < 200; ++i)
    EXPECT_TRUE(tensors[i][0].eq(i * all().size()).all().item<bool>()) << i;
}

TEST(Backend, BroadcastsAndGathers) {
  const auto group = attune::parallel::make_process_group(all());
  std::vector<at::Tensor> mine{at::full({3}, all().rank(), at::kLong)};
  std::vector<std::vector<at::Tensor>> gathered(1);
  for (int rank = 0; rank < all().size(); ++rank) gathered[0].push_back(at::empty({3}, at::kLong));
  group->allgather(gathered, mine)->wait();
  for (int rank = 0; rank < all().size(); ++rank)
    EXPECT_TRUE(gathered[0][rank].eq(rank).all().item<bool>());

  c10d::BroadcastOptions from_last;
  from_last.rootRank = all().size() - 1;
  group->broadcast(mine, from_last)->wait();
  EXPECT_TRUE(mine[0].eq(all().size() - 1).all().item<bool>());
  group->barrier()->wait();
}

TEST(Backend, SetsErrorsOnTheFuture) {
  const auto group = attune::parallel::make_process_group(all());
  std::vector<at::Tensor> tensors{at::zeros({2}, at::kComplexFloat)};
  const auto future = group->allreduce(tensors)->getFuture();
  EXPECT_THAT(message_of<std::exception>([&] {
                future->wait();
                if (future->hasError()) std::rethrow_exception(future->exception_ptr());
              }),
              HasSubstr("ComplexFloat"));
}

// ---- Gradients

/// Two layers of more than one bucket together, and one that not every loss uses. Doubles, so that
/// only real differences show.
struct Net {
  explicit Net(std::uint64_t seed) {
    auto generator = at::detail::createCPUGenerator(seed);
    const auto weights = [&](std::vector<std::int64_t> shape) {
      return at::randn(shape, generator, at::kDouble).mul(0.05).requires_grad_(true);
    };
    first = weights({400, 300});
    second = weights({500, 400});
    side = weights({300});
  }
  at::Tensor loss(const at::Tensor& x, bool with_side) const {
    auto sum = at::linear(at::tanh(at::linear(x, first)), second).square().sum();
    return with_side ? sum + x.matmul(side).square().sum() : sum;
  }
  NamedTensors parameters() const { return {{"first", first}, {"second", second}, {"side", side}}; }

  at::Tensor first;
  at::Tensor second;
  at::Tensor side;
};

/// Micro-batch j of a step has its own number of rows; the last one of a step does not use `side`.
at::Tensor micro_batch(std::int64_t step, std::int64_t j) {
  auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(step * 100 + j + 1));
  return at::randn({j % 5 + 1, 300}, generator, at::kDouble);
}
bool uses_side(std::int64_t j) { return j % 4 != 3; }

std::vector<at::Tensor> reference_gradients(const Net& net, std::int64_t step,
                                            std::int64_t micro_batches) {
  for (std::int64_t j = 0; j < micro_batches; ++j)
    net.loss(micro_batch(step, j), uses_side(j)).backward();
  std::vector<at::Tensor> gradients;
  for (const auto& [name, parameter] : net.parameters()) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad().clone()
                                                   : at::zeros_like(parameter));
    parameter.mutable_grad() = at::Tensor();
  }
  return gradients;
}

/// This rank's share of the micro-batches, contiguous as the trainer deals them; may be empty.
void reduce_share(const Net& net, GradientReducer& reducer, std::int64_t step,
                  std::int64_t micro_batches) {
  const auto begin = micro_batches * all().rank() / all().size();
  const auto end = micro_batches * (all().rank() + 1) / all().size();
  if (begin == end) reducer.begin_last_backward();
  for (auto j = begin; j < end; ++j) {
    const auto loss = net.loss(micro_batch(step, j), uses_side(j));
    if (j == end - 1) reducer.begin_last_backward();
    loss.backward();
  }
  reducer.finish();
}

void expect_equal_gradients(const Net& net, const std::vector<at::Tensor>& expected) {
  const auto parameters = net.parameters();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& [name, parameter] = parameters[i];
    ASSERT_TRUE(parameter.grad().defined()) << name;
    const auto difference = (parameter.grad() - expected[i]).norm().item<double>();
    EXPECT_LE(difference, 1e-6 * expected[i].norm().item<double>()) << name;
  }
}

TEST(Gradients, AreTheSumOverRanksOfUnevenMicroBatches) {
  const Net net(1);
  const Net alone(1);
  GradientReducer reducer(net.parameters(), all(), attune::parallel::make_process_group(all()));
  for (const std::int64_t micro_batches : {8, 7, 5}) {
    reduce_share(net, reducer, 0, micro_batches);
    expect_equal_gradients(net, reference_gradients(alone, 0, micro_batches));
    for (const auto& [name, parameter] : net.parameters()) parameter.mutable_grad() = at::Tensor();
  }
}

/// Every rank of the group holds everything.
attune::parallel::Sharing whole_on(const Comm& comm) {
  return attune::parallel::Sharing::nothing({comm, attune::parallel::make_process_group(comm)});
}

/// Of a parameter in bfloat16, in float32 on every rank: 258 is no number of bfloat16.
TEST(Gradients, OfRoundedParametersAreSumsInFloat32) {
  const auto gradient = [](bool reproducible) {
    auto weight = at::zeros({3, 1}, at::kBFloat16).requires_grad_();
    auto side = at::zeros({2}, at::kBFloat16).requires_grad_();
    attune::parallel::widen_gradient(weight);
    attune::parallel::widen_gradient(side);
    const attune::parallel::NamedTensors parameters{{"weight", weight}, {"side", side}};
    attune::parallel::GradientSum sum(parameters, attune::parallel::ShardPlan::whole(parameters),
                                      whole_on(all()), reproducible, /*in_one_piece=*/false);
    const auto size = all().size();
    sum.begin(2 * size, 2 * all().rank(), 2 * all().rank() + 2);
    for (const double x : {all().root() ? 256.0 : 1.0, 1.0})
      sum.backward(at::full({2, 3}, x, at::kBFloat16).matmul(weight)[0].sum());
    sum.finish();
    EXPECT_EQ(side.grad().scalar_type(), at::kFloat);
    EXPECT_EQ(side.grad().abs().sum().item<double>(), 0);
    EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
    return weight.grad()[0].item<double>();
  };
  for (const bool reproducible : {false, true})
    EXPECT_EQ(gradient(reproducible), 256 + 2 * all().size() - 1) << reproducible;
}

/// The gradients of all micro-batches by the tree, when rank r computes those from bounds[r] to
/// bounds[r+1].
std::vector<at::Tensor> tree_gradients(const Net& net, const Comm& comm, std::int64_t micro_batches,
                                       const std::vector<std::int64_t>& bounds) {
  attune::parallel::GradientSum tree(net.parameters(),
                                     attune::parallel::ShardPlan::whole(net.parameters()),
                                     whole_on(comm), /*reproducible=*/true, true);
  tree.begin(micro_batches, bounds[comm.rank()], bounds[comm.rank() + 1]);
  for (auto j = bounds[comm.rank()]; j < bounds[comm.rank() + 1]; ++j) {
    tree.backward(net.loss(micro_batch(0, j), uses_side(j)));
  }
  tree.finish();
  std::vector<at::Tensor> gradients;
  for (const auto& [name, parameter] : net.parameters())
    gradients.push_back(parameter.grad().clone());
  for (const auto& [name, parameter] : net.parameters()) parameter.mutable_grad() = at::Tensor();
  return gradients;
}

TEST(Gradients, AddedAlongTheTreeHaveTheSameBitsHoweverTheyAreShared) {
  const Net net(5);
  const Net alone(5);
  const auto n = all().size();
  for (const std::int64_t micro_batches : {1, 2, 3, 5, 7, 8, 13}) {
    const auto expected = tree_gradients(alone, Comm(), micro_batches, {0, micro_batches});
    // front and back: all on one rank, or nearly
    std::vector<std::int64_t> even;
    std::vector<std::int64_t> front;
    std::vector<std::int64_t> back;
    for (int rank = 0; rank <= n; ++rank) {
      even.push_back(micro_batches * rank / n);
      front.push_back(rank == 0 ? 0 : std::max<std::int64_t>(micro_batches - n + rank, 0));
      back.push_back(rank == n ? micro_batches : std::min<std::int64_t>(rank, micro_batches));
    }
    for (const auto& bounds : {even, front, back}) {
      const auto gradients = tree_gradients(net, all(), micro_batches, bounds);
      for (std::size_t i = 0; i < expected.size(); ++i)
        EXPECT_TRUE(gradients[i].equal(expected[i]))
            << micro_batches << " micro-batches, parameter " << i;
    }
  }
}

TEST(Gradients, OfARankWithoutMicroBatchesCountAsZero) {
  const Net net(2);
  const Net alone(2);
  GradientReducer reducer(net.parameters(), all(), attune::parallel::make_process_group(all()));
  reduce_share(net, reducer, 0, 1);
  expect_equal_gradients(net, reference_gradients(alone, 0, 1));
}

TEST(Gradients, OfAParameterThatNoRankUsesAreZeroAndNobodyWaits) {
  const Net net(3);
  const Net alone(3);
  GradientReducer reducer(net.parameters(), all(), attune::parallel::make_process_group(all()));
  for (int step = 0; step < 3; ++step) {
    reducer.begin_last_backward();
    net.loss(micro_batch(step, 2), false).backward();
    reducer.finish();
    EXPECT_EQ(net.side.grad().abs().sum().item<double>(), 0.0);
    // in place, as some optimizers do
    for (const auto& [name, parameter] : net.parameters()) parameter.grad().zero_();
  }
}

TEST(Gradients, StayRightOverFiftySteps) {
  const Net net(4);
  const Net alone(4);
  GradientReducer reducer(net.parameters(), all(), attune::parallel::make_process_group(all()));
  const auto descend = [](const Net& which, const std::vector<at::Tensor>& gradients) {
    const at::NoGradGuard no_grad;
    const auto parameters = which.parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      parameters[i].second.sub_(gradients[i], 1e-5);
  };
  for (int step = 0; step < 50; ++step) {
    const auto expected = reference_gradients(alone, step, 4);
    reduce_share(net, reducer, step, 4);
    expect_equal_gradients(net, expected);
    descend(alone, expected);
    descend(net, {net.first.grad(), net.second.grad(), net.side.grad()});
    for (const auto& [name, parameter] : net.parameters()) parameter.mutable_grad() = at::Tensor();
  }
  EXPECT_TRUE(at::allclose(net.first, alone.first, 1e-9));
}

/// A resumed run begins with a step that another run made later. Parameters whose gradients become
/// ready in another order than theirs, as tied ones do, would change places after a first step.
TEST(Gradients, HaveTheSameBitsInEveryStep) {
  torch::manual_seed(5);
  std::vector<at::Tensor> parameters;
  for (const auto size : {40'000, 7, 30'001, 500})
    parameters.push_back(torch::randn({size}).requires_grad_());
  GradientReducer reducer(
      {{"a", parameters[0]}, {"b", parameters[1]}, {"c", parameters[2]}, {"d", parameters[3]}},
      all(), attune::parallel::make_process_group(all()));
  torch::manual_seed(100 + all().rank());
  std::vector<at::Tensor> inputs;
  for (const auto& parameter : parameters) inputs.push_back(torch::randn_like(parameter));
  std::vector<at::Tensor> first;
  for (int step = 0; step < 3; ++step) {
    for (const auto& parameter : parameters) parameter.mutable_grad() = at::Tensor();
    reducer.begin_last_backward();
    // "c" is used first, so its gradient is the last
    at::Tensor sum = (parameters[2] * inputs[2]).sum();
    for (const auto i : {1, 3, 0}) sum = sum + (parameters[i] * inputs[i]).sum();
    sum.backward();
    reducer.finish();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (step == 0) first.push_back(parameters[i].grad().clone());
      EXPECT_TRUE(parameters[i].grad().equal(first[i])) << "step " << step << ", " << i;
    }
  }
}

TEST(Gradients, OfARecomputedLayerAreReduced) {
  // A layer whose forward pass is repeated inside the backward pass, as activation checkpointing
  // does: before the pass the graph does not show its parameters.
  struct Recomputed : torch::autograd::Function<Recomputed> {
    static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                              const Net* net) {
      context->save_for_backward({x});
      context->saved_data["net"] = reinterpret_cast<std::int64_t>(net);
      const at::NoGradGuard no_grad;
      return net->loss(x, true);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
      const auto* net = reinterpret_cast<const Net*>(context->saved_data["net"].toInt());
      const at::AutoGradMode with_grad(true);
      const auto x = context->get_saved_variables()[0].detach().requires_grad_(true);
      net->loss(x, true).backward(gradients[0]);
      return {x.grad(), at::Tensor()};
    }
  };
  const Net net(5);
  const Net alone(5);
  GradientReducer reducer(net.parameters(), all(), attune::parallel::make_process_group(all()));
  for (int step = 0; step < 3; ++step) {
    reducer.begin_last_backward();
    Recomputed::apply(micro_batch(step, all().rank()).requires_grad_(true), &net).backward();
    reducer.finish();
    std::vector<at::Tensor> expected;
    for (int rank = 0; rank < all().size(); ++rank)
      alone.loss(micro_batch(step, rank), true).backward();
    for (const auto& [name, parameter] : alone.parameters()) {
      expected.push_back(parameter.grad().clone());
      parameter.mutable_grad() = at::Tensor();
    }
    expect_equal_gradients(net, expected);
    for (const auto& [name, parameter] : net.parameters()) parameter.mutable_grad() = at::Tensor();
  }
}

TEST(Gradients, RefuseParametersThatDifferBetweenRanks) {
  const auto mine = at::zeros({3 + all().rank()}).requires_grad_(true);
  const auto text = message_of<Fault>(
      [&] { GradientReducer({{"w", mine}}, all(), attune::parallel::make_process_group(all())); });
  if (all().size() > 1)
    EXPECT_THAT(text, HasSubstr("rank 1"));
  else
    EXPECT_EQ(text, "");
}

TEST(BroadcastParameters, GivesEveryRankThoseOfRankZero) {
  const auto matrix = at::full({4, 3}, all().rank() + 1, at::kFloat).t().requires_grad_(true);
  const auto half = at::full({5}, all().rank() + 1, at::kBFloat16);
  attune::parallel::broadcast_parameters({{"matrix", matrix}, {"half", half}}, all());
  EXPECT_TRUE(matrix.eq(1).all().item<bool>());
  EXPECT_TRUE(half.eq(1).all().item<bool>());
}

// ---- Weights

class FakeWeights final : public attune::WeightSource {
 public:
  explicit FakeWeights(int& reads) : reads_(reads) {}
  const std::vector<attune::TensorInfo>& tensors() const override { return tensors_; }
  at::Tensor read(const std::string& name) override {
    ++reads_;
    if (name == "broken") attune::fail("model.safetensors: tensor 'broken' ends after the file");
    if (name == "scalar") return at::scalar_tensor(3, at::kLong);
    return at::arange(6, at::kFloat).view({2, 3}).to(at::kBFloat16);
  }

 private:
  int& reads_;
  std::vector<attune::TensorInfo> tensors_{
      {"w", {2, 3}, "BF16", 12}, {"scalar", {}, "I64", 8}, {"broken", {1}, "F32", 4}};
};

attune::SharedWeights shared(int& reads) {
  return {all().root() ? std::make_unique<FakeWeights>(reads) : nullptr, all()};
}

TEST(SharedWeights, AreReadOnceAndEqualOnAllRanks) {
  int reads = 0;
  auto weights = shared(reads);
  const auto w = weights.read("w");
  const auto scalar = weights.read("scalar");
  EXPECT_EQ(w.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(w.equal(at::arange(6, at::kFloat).view({2, 3}).to(at::kBFloat16)));
  EXPECT_EQ(scalar.dim(), 0);
  EXPECT_EQ(scalar.item<std::int64_t>(), 3);
  EXPECT_EQ(all().sum(std::int64_t{reads}), 2);
}

TEST(SharedWeights, ListTheSameTensorsOnAllRanks) {
  int reads = 0;
  const auto weights = shared(reads);
  ASSERT_EQ(weights.tensors().size(), 3u);
  EXPECT_EQ(weights.tensors()[0].name, "w");
  EXPECT_EQ(weights.tensors()[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(weights.tensors()[1].stored, "I64");
  EXPECT_EQ(weights.tensors()[2].bytes, 4u);
}

TEST(SharedWeights, PassARefusalOnToAllRanks) {
  int reads = 0;
  auto weights = shared(reads);
  EXPECT_EQ(message_of<Error>([&] { weights.read("broken"); }),
            "model.safetensors: tensor 'broken' ends after the file");
  EXPECT_TRUE(weights.read("w").defined());
}

}  // namespace
