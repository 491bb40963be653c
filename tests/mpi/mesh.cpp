// Groups of ranks on 1, 2, 3 and 4 ranks: how they are made and freed, and that what is divided
// over the data-parallel group of a mesh with shards is what as many ranks compute without.
#include <attune/mesh.hpp>
#include <attune/nn.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "errors.hpp"
#include "data/loader.hpp"
#include "evaluate/evaluate.hpp"
#include "parallel/backend.hpp"
#include "parallel/gradient_sum.hpp"
#include "parallel/mpi.hpp"
#include "train/scalars.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = world();
  return comm;
}

/// The ranks of a group, as numbered among all, in the group's order.
std::vector<int> members(const Comm& group) {
  std::vector<int> ranks;
  for (const auto& text : group.gather(std::to_string(all().rank())))
    ranks.push_back(std::stoi(text));
  return ranks;
}

// ---- Comm::split

TEST(Split, GroupsRanksByColorInTheOrderOfTheirKeys) {
  const auto n = all().size();
  const auto group = all().split(all().rank() % 2, -all().rank());
  std::vector<int> expected;
  for (int rank = n - 1; rank >= 0; --rank)
    if (rank % 2 == all().rank() % 2) expected.push_back(rank);
  EXPECT_EQ(members(group), expected);
  EXPECT_EQ(group.rank(), std::ranges::find(expected, all().rank()) - expected.begin());
  EXPECT_EQ(group.sum(std::int64_t{1}), std::ssize(expected));
}

TEST(Split, KeepsTheOrderOfEqualKeys) { EXPECT_EQ(members(all().split(0)), members(all())); }

TEST(Split, OfOneProcessIsThatProcess) {
  const auto alone = Comm().split(7);
  EXPECT_EQ(alone.size(), 1);
  EXPECT_EQ(alone.sum(2.0), 2.0);
  EXPECT_EQ(Comm().split_by_node().size(), 1);
}

TEST(Split, ByNodeHoldsTheRanksOfThisMachine) {
  EXPECT_EQ(members(all().split_by_node()), members(all()));
}

TEST(Split, OfAGroupSplitsThatGroupAlone) {
  const auto half = all().split(all().rank() / 2);
  const auto single = half.split(half.rank());
  EXPECT_EQ(single.size(), 1);
  EXPECT_EQ(single.gather("me"), std::vector<std::string>{"me"});
}

TEST(Split, LivesAsLongAsItsLastCopy) {
  Comm copy;
  {
    const auto group = all().split(0);
    copy = group;
  }
  EXPECT_EQ(copy.sum(std::int64_t{1}), all().size());
}

TEST(Split, GivesErrorsOfMpiAsFaults) {
  const auto group = all().split(all().rank() % 2);
  int value = 0;
  EXPECT_THROW(
      check_mpi(MPI_Bcast(&value, 1, MPI_INT, group.size() + 5, mpi_handle(group)), "MPI_Bcast"),
      Fault);
}

/// MPI's table of communicators: a place that is freed is used again.
TEST(Split, FreesItsCommunicator) {
  const auto place = [](const Comm& group) { return MPI_Comm_c2f(mpi_handle(group)); };
  if (all().size() == 1) return;  // no communicator is made
  const auto first = place(all().split(all().rank() % 2));
  MPI_Fint highest = first;
  const int times = all().size() == 2 ? 5000 : 500;  // more ranks take longer, on few cores
  for (int i = 0; i < times; ++i)
    highest = std::max(highest, place(all().split(i % 2 == 0 ? 0 : all().rank() % 2)));
  EXPECT_LE(highest, first + 2);
  const auto kept = all().split(0);
  const auto another = all().split(0);
  EXPECT_NE(place(kept), place(another));
}

TEST(Split, GroupsOfThreadsAreFreedToo) {
  if (all().size() == 1) return;
  const auto place = [] { return MPI_Comm_c2f(mpi_handle(all().split(0))); };
  const auto before = place();
  for (int i = 0; i < 100; ++i) {
    std::vector<at::Tensor> tensors{at::ones({3})};
    parallel::make_process_group(all())->allreduce(tensors)->wait();
  }
  EXPECT_LE(place(), before + 2);
}

// ---- Failures in a group

TEST(Agree, InAGroupConcernsItsRanksAlone) {
  const auto pair = all().split(all().rank() / 2);
  const bool fails = all().rank() / 2 == 0;
  const auto text = error_of([&] {
    pair.agree([&] {
      if (fails && pair.rank() == pair.size() - 1) fail("data.h5: cannot be read");
    });
  });
  const auto named = all().size() == 1
                         ? "data.h5: cannot be read"
                         : fmt::format("rank 1 of {}: data.h5: cannot be read", all().size());
  EXPECT_EQ(text, fails ? named : "no error");
}

TEST(Agree, NamesRanksAsTheRunCountsThem) {
  if (all().size() < 4) return;
  const auto column = all().split(all().rank() % 2);
  const auto text = error_of([&] {
    column.agree([&] {
      if (all().rank() == 3) fail("broken");
    });
  });
  EXPECT_EQ(text, all().rank() % 2 == 1 ? "rank 3 of 4: broken" : "no error");
}

TEST(Agree, SaysWhoReports) {
  const auto pair = all().split(all().rank() / 2);
  for (const auto* group : {&all(), &pair}) {
    try {
      group->agree([] { fail("no"); });
      FAIL();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.agreement.by_all, group->size() == all().size());
      EXPECT_EQ(error.agreement.speaks, group->rank() == 0);
    }
  }
}

// ---- Two groups at a time

TEST(Groups, CollectivesInFlightOnTwoOfThemDoNotWaitForEachOther) {
  if (all().size() != 4) return;
  const auto mesh = Mesh::make(all(), 2);
  const auto data = parallel::make_process_group(mesh.data),
             shard = parallel::make_process_group(mesh.shard);
  std::vector<at::Tensor> over_data;
  std::vector<at::Tensor> over_shard;
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  for (int i = 0; i < 50; ++i) {
    over_data.push_back(at::full({1000}, all().rank() + i, at::kFloat));
    over_shard.push_back(at::full({1000}, all().rank() + i, at::kFloat));
    const auto start = [&](auto& group, at::Tensor& tensor) {
      std::vector<at::Tensor> tensors{tensor};
      works.push_back(group->allreduce(tensors));
    };
    if (all().rank() % 3 == 0) {  // ranks ask in different orders
      start(data, over_data.back());
      start(shard, over_shard.back());
    } else {
      start(shard, over_shard.back());
      start(data, over_data.back());
    }
  }
  for (auto& work : works) work->wait();
  const auto column = all().rank() % 2;
  const auto row = all().rank() / 2;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(over_data[static_cast<std::size_t>(i)][0].item<float>(),
              static_cast<float>(column + column + 2 + 2 * i));
    EXPECT_EQ(over_shard[static_cast<std::size_t>(i)][0].item<float>(),
              static_cast<float>(4 * row + 1 + 2 * i));
  }
}

// ---- Mesh

TEST(Mesh, WithoutShardsIsAllDataParallel) {
  const auto mesh = Mesh::make(all());
  EXPECT_EQ(members(mesh.world), members(all()));
  EXPECT_EQ(members(mesh.data), members(all()));
  EXPECT_EQ(members(mesh.node), members(all()));
  EXPECT_EQ(mesh.shard.size(), 1);
}

TEST(Mesh, OfOneProcessNeedsNoMpi) {
  for (const auto& mesh : {Mesh(), Mesh::make(Comm())})
    for (const auto* group : {&mesh.world, &mesh.node, &mesh.data, &mesh.shard})
      EXPECT_EQ(group->size(), 1);
}

TEST(Mesh, KeepsTheRanksOfAShardGroupTogether) {
  if (all().size() != 4) return;
  const auto mesh = Mesh::make(all(), 2);
  const auto row = all().rank() / 2;
  const auto column = all().rank() % 2;
  EXPECT_EQ(members(mesh.shard), (std::vector<int>{2 * row, 2 * row + 1}));
  EXPECT_EQ(members(mesh.data), (std::vector<int>{column, column + 2}));
  const auto whole = Mesh::make(all(), 4);
  EXPECT_EQ(members(whole.shard), members(all()));
  EXPECT_EQ(whole.data.size(), 1);
}

TEST(Mesh, RefusesRanksThatCannotBeDivided) {
  const auto n = all().size();
  EXPECT_EQ(error_of([&] { Mesh::make(all(), n + 1); }),
            fmt::format("{} ranks cannot be divided into shard groups of {}: start a multiple of "
                        "{} ranks, or choose a shard size that divides {}",
                        n, n + 1, n + 1, n));
  EXPECT_THAT(error_of([&] { Mesh::make(all(), 0); }), HasSubstr("shard groups of 0"));
}

// ---- What is data-parallel

struct Columns final : Dataset {
  Sample encode(const Record&, const EncodeContext&) const override { return {}; }
  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<at::Tensor> x;
    std::vector<at::Tensor> y;
    Batch batch;
    for (const auto& sample : samples) {
      x.push_back(sample.at("x"));
      y.push_back(sample.at("y"));
      batch.starts.push_back(batch.starts.back() + 1);
    }
    batch.columns["x"] = torch::stack(x);
    batch.targets = torch::stack(y);
    return batch;
  }
};

/// One layer over the samples' column x.
class OneLayer final : public Model {
 public:
  OneLayer()
      : Model({.family = "one", .task = Task::classification, .context = 1, .outputs = 3}),
        projection_(5, 3, false) {
    const torch::NoGradGuard no_grad;
    projection_.weight.copy_(torch::arange(15).view({3, 5}).remainder(4).mul(0.125));
    projection_.weight.set_requires_grad(true);
  }
  at::Tensor embed(ForwardContext& context) override { return context.batch().columns.at("x"); }
  at::Tensor block(std::int64_t, const at::Tensor& h, ForwardContext&) override { return h; }
  at::Tensor finish(const at::Tensor& h, ForwardContext&) override { return h; }
  nn::Linear& projection() override { return projection_; }
  torch::nn::Module& module() override { return projection_; }
  nlohmann::json config() const override { return {}; }
  std::string block_name(std::int64_t) const override { return ""; }
  at::Tensor& weight() { return projection_.weight; }

 private:
  nn::Linear projection_;
};

/// A file that every rank makes for itself.
DataFile data_file() {
  const auto path =
      fs::path(testing::TempDir()) / ("attune-mesh-" + std::to_string(::getpid()) + ".h5");
  {
    const auto root = hdf5::create_file(path);
    root.attributes().set("format", std::string(data_format));
    root.attributes().set("version", data_version);
    auto generator = at::detail::createCPUGenerator(11);
    for (const auto& [name, rows] : {std::pair{"train", 30}, std::pair{"validation", 17}}) {
      const auto split = root.create_group(name);
      split.write("x", at::randn({rows, 5}, generator, at::kFloat));
      split.write("y", at::randint(3, {rows}, generator, at::kLong));
    }
  }
  auto file = DataFile::open(path);
  fs::remove(path);
  return file;
}

struct Result {
  at::Tensor weight;
  std::vector<std::vector<std::int64_t>> samples;  // of every data-parallel rank
  std::vector<double> losses;
  Metrics metrics;
};

/// Some steps and an evaluation, as a run makes them.
Result train_on(const Mesh& mesh, bool reproducible) {
  const auto file = data_file();
  OneLayer model;
  Strategies strategies({});
  const Columns columns;
  LoaderOptions options{
      .global_batch = 8, .seed = 3, .plan = {.micro_batch = 1}, .reproducible = reproducible};
  Loader loader(file.split("train"), columns, options, mesh.data.rank(), mesh.data.size());
  const parallel::NamedTensors parameters{{"weight", model.weight()}};
  const parallel::RankGroup data{mesh.data, parallel::make_process_group(mesh.data)};
  parallel::GradientSum gradients(parameters, parallel::ShardPlan::whole(parameters),
                                  parallel::Sharing::nothing(data), reproducible, true);
  Result result;
  std::vector<std::int64_t> own;
  for (std::int64_t step = 0; step < 6; ++step) {
    const auto& plan = loader.begin_step(step);
    gradients.begin(std::ssize(plan.micro_batches), plan.first, plan.end);
    train::ScalarSums scalars;
    for (auto i = plan.first; i < plan.end; ++i) {
      const ForwardContext context(loader.next(), Phase::training);
      own.insert(own.end(), context.batch().ids.begin(), context.batch().ids.end());
      const auto loss = strategies.loss(model, context);
      scalars.add(i, {{"loss", {loss.sum.item<double>(), static_cast<double>(loss.count)}}});
      gradients.backward(loss.sum);
    }
    gradients.finish();
    result.losses.push_back(scalars.means(mesh.data).at("loss"));
    const torch::NoGradGuard no_grad;
    model.weight().sub_(model.weight().grad(), 0.05);
    model.weight().mutable_grad() = at::Tensor();
  }
  for (const auto& text : mesh.data.gather(nlohmann::json(own).dump()))
    result.samples.push_back(nlohmann::json::parse(text));
  result.weight = model.weight().detach().clone();
  result.metrics =
      *evaluate(model, strategies, columns, {file.split("validation"), 17, 3}, mesh, at::kCPU);
  return result;
}

void expect_equal(const Result& ours, const Result& theirs) {
  EXPECT_TRUE(ours.weight.equal(theirs.weight));
  EXPECT_EQ(ours.samples, theirs.samples);
  EXPECT_EQ(ours.losses, theirs.losses);
  EXPECT_EQ(ours.metrics, theirs.metrics);
}

TEST(Mesh, WithShardsTrainsAndMeasuresAsItsDataParallelGroupAlone) {
  if (all().size() != 4) return;
  const auto two_ranks = Mesh::make(all().split(all().rank() / 2));
  for (const bool reproducible : {false, true}) {
    const auto alone = train_on(two_ranks, reproducible),
               with_shards = train_on(Mesh::make(all(), 2), reproducible);
    EXPECT_EQ(with_shards.samples.size(), 2u);
    expect_equal(with_shards, alone);
    EXPECT_NE(with_shards.losses.front(), with_shards.losses.back());
  }
}

TEST(Mesh, OfAnyShapeIsReproducible) {
  const auto alone = train_on(Mesh(), true);
  for (int shards = 1; shards <= all().size(); ++shards) {
    if (all().size() % shards != 0) continue;
    const auto result = train_on(Mesh::make(all(), shards), true);
    EXPECT_TRUE(result.weight.equal(alone.weight)) << shards;
    EXPECT_EQ(result.metrics, alone.metrics) << shards;
  }
}

TEST(Mesh, EndsAnEvaluationOnAllRanksWhenOneGivesUp) {
  if (all().size() != 4) return;
  const auto mesh = Mesh::make(all(), 2);
  const auto file = data_file();
  OneLayer model;
  Strategies strategies({});
  const EvaluateOn on{file.split("validation"), 17, 3, [] { return all().rank() == 3; }};
  EXPECT_FALSE(evaluate(model, strategies, Columns(), on, mesh, at::kCPU));
}

TEST(Traffic, OfAStepIsItsGradients) {
  const auto mesh = Mesh::make(all());
  const auto bytes = [&] { return parallel::traffic_of_rank(mesh.world); };
  const auto weight = torch::zeros({1000, 100}).requires_grad_(true),
             bias = torch::zeros({7}).requires_grad_(true);
  const parallel::NamedTensors parameters{{"weight", weight}, {"bias", bias}};
  const parallel::RankGroup data{mesh.data, parallel::make_process_group(mesh.data)};
  parallel::GradientSum gradients(parameters, parallel::ShardPlan::whole(parameters),
                                  parallel::Sharing::nothing(data), false, true);
  const auto step = [&] {
    gradients.begin(all().size(), all().rank(), all().rank() + 1);
    gradients.backward(weight.sum() + bias.sum());
    gradients.finish();
  };
  auto before = bytes();
  step();
  auto after = bytes();
  if (all().size() == 1) {
    EXPECT_TRUE(after.empty());
    return;
  }
  EXPECT_EQ(after["all_reduce"].bytes - before["all_reduce"].bytes, 4 * (100'000 + 7));
  before.erase("all_reduce");
  after.erase("all_reduce");
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace attune
