// The optimizer against LibTorch's own, and the schedules against transformers' formulas.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <attune/adamw.hpp>
#include <attune/callback.hpp>
#include <attune/registry.hpp>
#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "core/files.hpp"
#include "nn/rounding.hpp"
#include "parallel/wide_gradients.hpp"
#include "registry/loader.hpp"
#include "train/best.hpp"
#include "train/schedule.hpp"
#include "train/updater.hpp"

namespace attune::train {
namespace {

const Registry& registry() {
  static const Registry registry = [] {
    Registry loaded;
    load_plugins(loaded, {ATTUNE_BINARY_DIR "/plugins"});
    return loaded;
  }();
  return registry;
}

using Values = std::map<std::string, OptionValue>;

template <class Interface>
std::shared_ptr<Interface> made(Kind kind, const std::string& plugin, const Values& values = {}) {
  const auto& entry = registry().find(kind, plugin);
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options)
    if (values.contains(option.name)) option.set(options.get(), values.at(option.name));
  return std::static_pointer_cast<Interface>(entry.build(options.get(), nullptr));
}

/// Those that come with Attune, and one of a plugin for each way.
std::vector<Metric> all_metrics() {
  auto all = metrics::all();
  all.push_back({"exact_match", Better::larger});
  all.push_back({"spread", Better::smaller});
  return all;
}

TEST(Best, IsKnownByEveryMetric) {
  for (const auto& metric : all_metrics()) {
    Best best(metric.name);
    const auto is_best = [&](double value) {
      attune::Run run;
      run.declared = {metric};
      run.metrics[metric.name] = metric.better == Better::larger ? value : -value;
      return best.is_beaten_by(run);
    };
    EXPECT_FALSE(is_best(std::nan(""))) << metric.name;
    EXPECT_TRUE(is_best(-0.5)) << metric.name;
    EXPECT_FALSE(is_best(-0.7)) << metric.name;
    EXPECT_FALSE(is_best(std::nan(""))) << metric.name;
    EXPECT_TRUE(is_best(0.2)) << metric.name;
    EXPECT_FALSE(is_best(0.2)) << metric.name;
  }
  EXPECT_FALSE(Best("").is_beaten_by(attune::Run())) << "nothing is watched";
}

Updater updater(const std::string& plugin, std::vector<ParameterGroup> groups,
                const Values& values = {}, double weight_decay = 0) {
  return {made<Optimizer>(Kind::optimizer, plugin, values),
          std::move(groups),
          weight_decay,
          {"block."}};
}

struct Pair {
  std::vector<at::Tensor> ours;
  std::vector<at::Tensor> theirs;
};

/// Three, the first of this shape.
Pair parameters(const std::vector<std::int64_t>& first = {5, 7}) {
  torch::manual_seed(0);
  Pair pair;
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{first, {7}, {3, 2, 4}}) {
    pair.ours.push_back(torch::randn(shape).requires_grad_());
    pair.theirs.push_back(pair.ours.back().detach().clone().requires_grad_());
  }
  return pair;
}

std::vector<ParameterGroup> groups_of(const Pair& pair) {
  return {{{{"a", pair.ours[0]}, {"b", pair.ours[1]}}, 1.0, 1.0},
          {{{"c", pair.ours[2]}}, 1.0, 1.0}};
}

void set_gradients(Pair& pair) {
  for (std::size_t i = 0; i < pair.ours.size(); ++i) {
    const auto gradient = torch::randn_like(pair.ours[i]);
    pair.ours[i].mutable_grad() = gradient.clone();
    pair.theirs[i].mutable_grad() = gradient.clone();
  }
}

TEST(Optimizer, AdamWEqualsLibTorchs) {
  auto pair = parameters({600, 500});
  auto ours = updater("adamw", groups_of(pair), {{"beta2", 0.98}}, 0.1);
  torch::optim::AdamW theirs(
      pair.theirs, torch::optim::AdamWOptions(3e-2).weight_decay(0.1).betas({0.9, 0.98}).eps(1e-8));
  for (int step = 0; step < 20; ++step) {
    set_gradients(pair);
    ours.step(ours.gradients(), 3e-2, 1);
    theirs.step();
  }
  for (std::size_t i = 0; i < pair.ours.size(); ++i)
    EXPECT_TRUE(torch::allclose(pair.ours[i], pair.theirs[i], 1e-6, 1e-7)) << i;
}

TEST(Optimizer, SgdWithMomentumEqualsLibTorchs) {
  auto pair = parameters();
  auto ours = updater("sgd", groups_of(pair), {{"momentum", 0.9}});
  torch::optim::SGD theirs(pair.theirs, torch::optim::SGDOptions(1e-2).momentum(0.9));
  for (int step = 0; step < 20; ++step) {
    set_gradients(pair);
    ours.step(ours.gradients(), 1e-2, 1);
    theirs.step();
  }
  for (std::size_t i = 0; i < pair.ours.size(); ++i)
    EXPECT_TRUE(torch::allclose(pair.ours[i], pair.theirs[i], 1e-6, 1e-7)) << i;
}

TEST(Optimizer, ScalesThenClipsToTheNorm) {
  auto pair = parameters();
  auto optimizer = updater("sgd", groups_of(pair));
  set_gradients(pair);
  const auto flat = [](const std::vector<at::Tensor>& tensors) {
    return torch::cat({tensors[0].flatten(), tensors[1].flatten(), tensors[2].flatten()}).detach();
  };
  const at::Tensor before =
      flat({pair.theirs[0].grad(), pair.theirs[1].grad(), pair.theirs[2].grad()});
  const double norm = 0.5 * optimizer.norm_of(optimizer.gradients());
  EXPECT_NEAR(norm, 0.5 * before.norm().item<double>(), 1e-5);
  optimizer.step(optimizer.gradients(), 1, clipped(0.5, norm, 1.0));
  EXPECT_TRUE(
      torch::allclose(flat(pair.theirs) - flat(pair.ours), before / before.norm(), 1e-5, 1e-6));
  for (std::size_t i = 0; i < pair.ours.size(); ++i)
    pair.ours[i].mutable_grad() = pair.theirs[i].grad().clone();
  optimizer.step(optimizer.gradients(), 1,
                 clipped(1.0, optimizer.norm_of(optimizer.gradients()), 1e6));  // not clipped
  EXPECT_TRUE(torch::allclose(flat(pair.theirs) - flat(pair.ours), before / before.norm() + before,
                              1e-5, 1e-6));
}

TEST(Optimizer, AdamWTakesGradientsScaledAndClipped) {
  auto pair = parameters();
  auto optimizer = updater("adamw", groups_of(pair));
  set_gradients(pair);
  const double norm = 0.5 * optimizer.norm_of(optimizer.gradients());
  ASSERT_GT(norm, 1.0);
  optimizer.step(optimizer.gradients(), 1e-3, clipped(0.5, norm, 1.0));
  const auto mean = optimizer.state().front();  // beta1 is 0.9
  EXPECT_EQ(mean.name, "a.exp_avg");
  EXPECT_TRUE(torch::allclose(mean.tensor, pair.theirs[0].grad() * (0.1 * 0.5 / norm), 1e-5, 1e-7));
}

std::size_t resident_bytes() {
  std::istringstream pages(read_text("/proc/self/statm"));
  std::size_t all = 0;
  std::size_t resident = 0;
  pages >> all >> resident;
  return resident * 4096;
}

TEST(Optimizer, MomentsOfAdamWTakeNoMemoryBeforeTheFirstUpdate) {
  const at::Tensor large = torch::zeros({64, 1 << 20}).requires_grad_();
  const auto before = resident_bytes();
  const auto optimizer = updater("adamw", {{{{"e", large}}, 1.0, 1.0}});
  EXPECT_LT(resident_bytes() - before, large.nbytes() / 4);
  const auto moments = optimizer.state();
  EXPECT_EQ(moments[0].tensor.count_nonzero().item<std::int64_t>() +
                moments[1].tensor.count_nonzero().item<std::int64_t>(),
            0);
}

/// The first rows of a large embedding have a gradient now and then, the others never.
TEST(Optimizer, AdamWEqualsLibTorchsWhereGradientsAreZero) {
  torch::manual_seed(3);
  for (const double decay : {0.0, 0.1}) {
    Pair pair;
    pair.ours.push_back(torch::randn({700, 96}).requires_grad_());
    pair.theirs.push_back(pair.ours.back().detach().clone().requires_grad_());
    const AdamW::Options options;
    auto ours =
        std::make_unique<Updater>(updater("adamw", {{{{"e", pair.ours[0]}}, 1.0, 1.0}}, {}, decay));
    torch::optim::AdamW theirs(pair.theirs, torch::optim::AdamWOptions(1e-2)
                                                .weight_decay(decay)
                                                .betas({options.beta1, options.beta2})
                                                .eps(options.epsilon));
    for (int step = 0; step < 12; ++step) {
      at::Tensor gradient = torch::zeros({700, 96});
      if (step % 3 == 0) gradient.narrow(0, step * 10, 7).normal_();
      pair.ours[0].mutable_grad() = gradient.clone();
      pair.theirs[0].mutable_grad() = gradient.clone();
      if (step == 6) {  // goes on from a checkpoint
        auto resumed = updater("adamw", {{{{"e", pair.ours[0]}}, 1.0, 1.0}}, {}, decay);
        const torch::NoGradGuard no_grad;
        auto to = resumed.state();
        const auto from = ours->state();
        for (std::size_t i = 0; i < to.size(); ++i) to[i].tensor.copy_(from[i].tensor);
        *ours = std::move(resumed);
      }
      ours->step(ours->gradients(), 1e-2, 1);
      theirs.step();
    }
    EXPECT_TRUE(torch::allclose(pair.ours[0], pair.theirs[0], 1e-6, 1e-7))
        << decay << ": " << (pair.ours[0] - pair.theirs[0]).abs().max();
  }
}

TEST(Optimizer, GroupsScaleTheirLearningRate) {
  auto pair = parameters();
  auto groups = groups_of(pair);
  groups[1].learning_rate_scale = 0;
  auto optimizer = updater("sgd", std::move(groups));
  set_gradients(pair);
  optimizer.step(optimizer.gradients(), 0.1, 1);
  EXPECT_FALSE(torch::equal(pair.ours[0], pair.theirs[0]));
  EXPECT_TRUE(torch::equal(pair.ours[2], pair.theirs[2]));
}

/// From shapes alone, as memory is planned, and made.
TEST(Optimizer, EachKeepsWhatItSaysOfShapes) {
  for (const auto& name : registry().names(Kind::optimizer)) {
    const auto optimizer = made<Optimizer>(Kind::optimizer, name);
    ParameterGroup group;
    std::vector<ParameterSpec> specs;
    for (const auto& [parameter, sizes] :
         std::map<std::string, std::vector<std::int64_t>>{{"block.weight", {6, 4}},
                                                          {"block.convolution", {6, 4, 3, 3}},
                                                          {"block.bias", {6}},
                                                          {"block.scale", {}},
                                                          {"embedding", {9, 4}}}) {
      group.parameters.emplace_back(parameter, torch::ones(sizes).requires_grad_());
      specs.push_back({parameter, sizes, at::kFloat, parameter.starts_with("block.")});
    }
    std::size_t bytes = 0;
    for (const auto& kept : Updater(optimizer, {group}, 0, {"block."}).state())
      bytes += kept.tensor.nbytes();
    EXPECT_EQ(bytes, state_bytes(*optimizer, specs)) << name;
  }
}

std::vector<std::string> state_names(const std::string& plugin, const Values& values = {}) {
  const ParameterGroup group{{{"block.w", torch::ones({4, 6}).requires_grad_()},
                              {"head", torch::ones({2, 6}).requires_grad_()}},
                             1,
                             1};
  std::vector<std::string> names;
  for (const auto& kept : updater(plugin, {group}, values).state()) names.push_back(kept.name);
  return names;
}

TEST(Optimizer, StateHasTheNamesThatCheckpointsHave) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(state_names("adamw"), (Names{"block.w.exp_avg", "block.w.exp_avg_sq", "block.w.step",
                                         "head.exp_avg", "head.exp_avg_sq", "head.step"}));
  EXPECT_EQ(state_names("sgd"), Names{});
  EXPECT_EQ(state_names("sgd", {{"momentum", 0.9}}), (Names{"block.w.momentum", "head.momentum"}));
  EXPECT_EQ(state_names("lion"), (Names{"block.w.exp_avg", "head.exp_avg"}));
  EXPECT_EQ(state_names("muon"),
            (Names{"block.w.momentum_buffer", "head.exp_avg", "head.exp_avg_sq", "head.step"}));
  EXPECT_EQ(state_names("adafactor"),
            (Names{"block.w.exp_avg_sq_row", "block.w.exp_avg_sq_col", "block.w.step",
                   "head.exp_avg_sq_row", "head.exp_avg_sq_col", "head.step"}));
}

/// In bfloat16, as they are trained: with gradients in float32.
Pair rounded_parameters() {
  auto pair = parameters();
  for (auto& parameter : pair.ours) {
    parameter = parameter.detach().to(at::kBFloat16).requires_grad_();
    parallel::widen_gradient(parameter);
  }
  for (std::size_t i = 0; i < pair.ours.size(); ++i)
    pair.theirs[i] = pair.ours[i].detach().to(at::kFloat).requires_grad_();
  return pair;
}

void set_float_gradients(Pair& pair, int step) {
  torch::manual_seed(20 + step);
  for (std::size_t i = 0; i < pair.ours.size(); ++i) {
    const auto gradient = torch::randn_like(pair.theirs[i]);
    pair.ours[i].mutable_grad() = gradient.clone();
    pair.theirs[i].mutable_grad() = gradient.clone();
  }
}

std::vector<ParameterGroup> groups_of_theirs(const Pair& pair) {
  return groups_of({pair.theirs, pair.ours});
}

void expect_rounded(const Pair& pair, const std::string& what) {
  for (std::size_t i = 0; i < pair.ours.size(); ++i)
    EXPECT_TRUE(torch::equal(pair.ours[i], nn::rounded_evenly(pair.theirs[i].detach())))
        << what << ": " << i;
}

/// At a rate at which most updates are less than half of bfloat16's last digit.
TEST(Masters, EachOptimizerUpdatesThemAsItDoesFloat32) {
  for (const auto& name : registry().names(Kind::optimizer)) {
    auto pair = rounded_parameters();
    auto ours = updater(name, groups_of(pair), {}, 0.1);
    auto theirs = updater(name, groups_of_theirs(pair), {}, 0.1);
    const auto before = pair.ours[0].detach().clone();
    for (int step = 0; step < 30; ++step) {
      set_float_gradients(pair, step);
      ours.step(ours.gradients(), 1e-4, 0.5);
      theirs.step(theirs.gradients(), 1e-4, 0.5);
      expect_rounded(pair, name);
    }
    EXPECT_FALSE(torch::equal(pair.ours[0], before)) << name << ": the updates have added up";
  }
}

TEST(Masters, TakeWhatElseHasChangedTheParameter) {
  auto pair = rounded_parameters();
  auto ours = updater("adamw", groups_of(pair));
  auto theirs = updater("adamw", groups_of_theirs(pair));
  for (int step = 0; step < 6; ++step) {
    if (step == 3) {
      const torch::NoGradGuard no_grad;
      for (auto* each : {&pair.ours[0], &pair.theirs[0]}) each->narrow(0, 1, 2).fill_(0.25);
    }
    set_float_gradients(pair, step);
    ours.step(ours.gradients(), 1e-4, 1);
    theirs.step(theirs.gradients(), 1e-4, 1);
    expect_rounded(pair, fmt::format("step {}", step));
  }
}

TEST(Masters, OfWhatIsFrozenForNowAreLeftAlone) {
  auto pair = rounded_parameters();
  auto ours = updater("adamw", groups_of(pair), {}, 0.1);
  pair.ours[0].set_requires_grad(false);
  set_float_gradients(pair, 0);
  ours.step(ours.gradients(), 1e-1, 1);
  EXPECT_TRUE(torch::equal(pair.ours[0], pair.theirs[0].to(at::kBFloat16)));
  EXPECT_FALSE(torch::equal(pair.ours[1], pair.theirs[1].to(at::kBFloat16)));
}

TEST(Masters, GoOnFromTheStateOfACheckpoint) {
  auto pair = rounded_parameters();
  auto first = updater("adamw", groups_of(pair));
  const auto train = [&](Updater& updater, Pair& of, int from, int to) {
    for (int step = from; step < to; ++step) {
      set_float_gradients(of, step);
      updater.step(updater.gradients(), 1e-4, 1);
    }
  };
  train(first, pair, 0, 7);
  auto resumed = rounded_parameters();
  auto second = updater("adamw", groups_of(resumed));
  {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < pair.ours.size(); ++i) resumed.ours[i].copy_(pair.ours[i]);
    const auto saved = first.state();
    const auto live = second.state();
    ASSERT_EQ(saved.size(), live.size());
    for (std::size_t i = 0; i < saved.size(); ++i) {
      EXPECT_EQ(saved[i].name, live[i].name);
      at::Tensor(live[i].tensor).copy_(saved[i].tensor);
    }
  }
  train(first, pair, 7, 14);
  train(second, resumed, 7, 14);
  for (std::size_t i = 0; i < pair.ours.size(); ++i)
    EXPECT_TRUE(torch::equal(pair.ours[i], resumed.ours[i])) << i;
  EXPECT_EQ(first.state()[0].name, "a.master");
  EXPECT_EQ(first.state()[0].tensor.scalar_type(), at::kFloat);
}

/// As LibTorch says it: added up as they come, not rounded first.
TEST(Masters, TheirGradientsAreSumsInFloat32) {
  auto weight = torch::zeros({1, 1}, at::kBFloat16).requires_grad_();
  parallel::widen_gradient(weight);
  for (const double x : {256.0, 1.0, 1.0})
    (torch::full({1, 1}, x, at::kBFloat16).matmul(weight)).sum().backward();
  EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(weight.grad().item<double>(), 258);
  auto wide = torch::zeros({1}).requires_grad_();
  parallel::widen_gradient(wide);
  EXPECT_FALSE(parallel::has_wide_gradient(wide));
}

/// A transposed parameter's gradient may lie in memory as it was computed.
TEST(Optimizer, EachUpdatesAParameterAlikeHoweverItLiesInMemory) {
  for (const auto& name : registry().names(Kind::optimizer)) {
    torch::manual_seed(5);
    const auto values = torch::randn({5, 7});
    const auto gradient = torch::randn({5, 7});
    std::vector<at::Tensor> results;
    for (const bool parameter_turned : {false, true})
      for (const bool gradient_turned : {false, true}) {
        const auto laid = [](const at::Tensor& x, bool turned) {
          return turned ? x.t().contiguous().t() : x.clone();
        };
        auto parameter = laid(values, parameter_turned).requires_grad_();
        auto optimizer = updater(name, {{{{"block.w", parameter}}, 1, 1}}, {}, 0.1);
        for (int step = 0; step < 3; ++step) {
          parameter.mutable_grad() = laid(gradient, gradient_turned);
          optimizer.step(optimizer.gradients(), 1e-2, 0.5);
        }
        results.push_back(parameter.detach());
      }
    for (const auto& result : results)
      EXPECT_TRUE(torch::allclose(result, results[0], 1e-5, 1e-6)) << name;
    EXPECT_FALSE(torch::allclose(results[0], values)) << name;
  }
}

TEST(Optimizer, WhatAStrategyHasFrozenForNowIsLeftAlone) {
  for (const auto& name : registry().names(Kind::optimizer)) {
    auto pair = parameters();
    auto optimizer = updater(name, groups_of(pair), {}, 0.1);
    set_gradients(pair);
    pair.ours[0].set_requires_grad(false);
    optimizer.step(optimizer.gradients(), 1e-2, 1);
    EXPECT_TRUE(torch::equal(pair.ours[0], pair.theirs[0])) << name;
    EXPECT_FALSE(torch::equal(pair.ours[1], pair.theirs[1])) << name;
    for (const auto& kept : optimizer.state())
      EXPECT_TRUE(!kept.name.starts_with("a.") ||
                  kept.tensor.count_nonzero().item<std::int64_t>() == 0)
          << name << ": " << kept.name;
  }
}

/// Each step by itself, and in any order: a resumed run asks for the later ones alone.
TEST(Schedule, EachIsAFunctionOfTheStep) {
  for (const auto& name : registry().names(Kind::schedule)) {
    config::TrainOptions options;
    options.learning_rate = 1;
    options.warmup = 0.2;
    const auto schedule = made<Schedule>(Kind::schedule, name);
    std::vector<double> rates;
    for (int step = 0; step < 50; ++step)
      rates.push_back(learning_rate_at(step, 50, options, *schedule));
    const auto again = made<Schedule>(Kind::schedule, name);
    for (int step = 49; step >= 0; --step)
      EXPECT_EQ(learning_rate_at(step, 50, options, *again), rates[static_cast<std::size_t>(step)])
          << name;
    EXPECT_EQ(rates[10], 1) << name << ": the warm-up ends at the peak";
    EXPECT_LE(*std::max_element(rates.begin(), rates.end()), 1) << name;
    EXPECT_GE(*std::min_element(rates.begin(), rates.end()), 0) << name;
  }
}

TEST(Schedule, FollowsTransformersFormulas) {
  config::TrainOptions options;
  options.learning_rate = 1;
  options.warmup = 0.1;
  auto schedule = made<Schedule>(Kind::schedule, "cosine");
  EXPECT_DOUBLE_EQ(learning_rate_at(0, 100, options, *schedule), 0);
  EXPECT_DOUBLE_EQ(learning_rate_at(5, 100, options, *schedule), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(10, 100, options, *schedule), 1);
  EXPECT_NEAR(learning_rate_at(55, 100, options, *schedule), 0.5, 1e-12);
  schedule = made<Schedule>(Kind::schedule, "linear");
  EXPECT_NEAR(learning_rate_at(55, 100, options, *schedule), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate_at(99, 100, options, *schedule), 1.0 / 90, 1e-12);
  schedule = made<Schedule>(Kind::schedule, "constant");
  EXPECT_DOUBLE_EQ(learning_rate_at(99, 100, options, *schedule), 1);
  options.warmup = 0;
  EXPECT_DOUBLE_EQ(learning_rate_at(0, 100, options, *schedule), 1);
}

TEST(Schedule, EpochsRoundUpToWholeSteps) {
  config::TrainOptions options;
  options.global_batch = 4;
  options.epochs = 2;
  EXPECT_EQ(steps_of(options, 9), 5);
  options.epochs = 0.5;
  EXPECT_EQ(steps_of(options, 8), 1);
  options.steps = 7;
  EXPECT_EQ(steps_of(options, 9), 7);
}

}  // namespace
}  // namespace attune::train
