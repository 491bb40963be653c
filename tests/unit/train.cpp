// The optimizer against LibTorch's own, and the schedules against transformers' formulas.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <attune/callback.hpp>
#include <algorithm>
#include <sstream>

#include "core/files.hpp"
#include "train/optimizer.hpp"
#include "train/schedule.hpp"

namespace attune::train {
namespace {

struct Pair {
  std::vector<at::Tensor> ours, theirs;
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
  return {{{{"a", pair.ours[0]}, {"b", pair.ours[1]}}, 1.0, 1.0}, {{{"c", pair.ours[2]}}, 1.0, 1.0}};
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
  config::TrainOptions options;
  options.weight_decay = 0.1;
  options.beta2 = 0.98;
  Optimizer ours(groups_of(pair), options);
  torch::optim::AdamW theirs(pair.theirs, torch::optim::AdamWOptions(3e-2).weight_decay(0.1).betas({0.9, 0.98}).eps(1e-8));
  for (int step = 0; step < 20; ++step) {
    set_gradients(pair);
    ours.step(3e-2);
    theirs.step();
  }
  for (std::size_t i = 0; i < pair.ours.size(); ++i) EXPECT_TRUE(torch::allclose(pair.ours[i], pair.theirs[i], 1e-6, 1e-7)) << i;
}

TEST(Optimizer, SgdWithMomentumEqualsLibTorchs) {
  auto pair = parameters();
  config::TrainOptions options;
  options.optimizer = "sgd";
  options.momentum = 0.9;
  Optimizer ours(groups_of(pair), options);
  torch::optim::SGD theirs(pair.theirs, torch::optim::SGDOptions(1e-2).momentum(0.9));
  for (int step = 0; step < 20; ++step) {
    set_gradients(pair);
    ours.step(1e-2);
    theirs.step();
  }
  for (std::size_t i = 0; i < pair.ours.size(); ++i) EXPECT_TRUE(torch::allclose(pair.ours[i], pair.theirs[i], 1e-6, 1e-7)) << i;
}

TEST(Optimizer, ScalesThenClipsToTheNorm) {
  auto pair = parameters();
  config::TrainOptions options;
  options.optimizer = "sgd";
  Optimizer optimizer(groups_of(pair), options);
  set_gradients(pair);
  const auto flat = [](const std::vector<at::Tensor>& tensors) { return torch::cat({tensors[0].flatten(), tensors[1].flatten(), tensors[2].flatten()}).detach(); };
  const at::Tensor before = flat({pair.theirs[0].grad(), pair.theirs[1].grad(), pair.theirs[2].grad()});
  const double norm = optimizer.scale_and_clip(0.5, 1.0);
  EXPECT_NEAR(norm, 0.5 * before.norm().item<double>(), 1e-5);
  optimizer.step(1);
  EXPECT_TRUE(torch::allclose(flat(pair.theirs) - flat(pair.ours), before / before.norm(), 1e-5, 1e-6));
  for (std::size_t i = 0; i < pair.ours.size(); ++i) pair.ours[i].mutable_grad() = pair.theirs[i].grad().clone();
  optimizer.scale_and_clip(1.0, 1e6);  // not clipped
  optimizer.step(1);
  EXPECT_TRUE(torch::allclose(flat(pair.theirs) - flat(pair.ours), before / before.norm() + before, 1e-5, 1e-6));
}

TEST(Optimizer, AdamWTakesGradientsScaledAndClipped) {
  auto pair = parameters();
  Optimizer optimizer(groups_of(pair), {});
  set_gradients(pair);
  const double norm = optimizer.scale_and_clip(0.5, 1.0);
  ASSERT_GT(norm, 1.0);
  optimizer.step(1e-3);
  const auto [name, mean] = optimizer.state().front();  // beta1 is 0.9
  EXPECT_EQ(name, "a.exp_avg");
  EXPECT_TRUE(torch::allclose(mean, pair.theirs[0].grad() * (0.1 * 0.5 / norm), 1e-5, 1e-7));
}

std::size_t resident_bytes() {
  std::istringstream pages(read_text("/proc/self/statm"));
  std::size_t all = 0, resident = 0;
  pages >> all >> resident;
  return resident * 4096;
}

TEST(Optimizer, MomentsOfAdamWTakeNoMemoryBeforeTheFirstUpdate) {
  const at::Tensor large = torch::zeros({64, 1 << 20}).requires_grad_();
  const auto before = resident_bytes();
  const Optimizer optimizer({{{{"e", large}}, 1.0, 1.0}}, {});
  EXPECT_LT(resident_bytes() - before, large.nbytes() / 4);
  const auto moments = optimizer.state();
  EXPECT_EQ(moments[0].second.count_nonzero().item<std::int64_t>() + moments[1].second.count_nonzero().item<std::int64_t>(), 0);
}

/// The first rows of a large embedding have a gradient now and then, the others never.
TEST(Optimizer, AdamWEqualsLibTorchsWhereGradientsAreZero) {
  torch::manual_seed(3);
  for (const double decay : {0.0, 0.1}) {
    Pair pair;
    pair.ours.push_back(torch::randn({700, 96}).requires_grad_());
    pair.theirs.push_back(pair.ours.back().detach().clone().requires_grad_());
    config::TrainOptions options;
    options.weight_decay = decay;
    auto ours = std::make_unique<Optimizer>(std::vector<ParameterGroup>{{{{"e", pair.ours[0]}}, 1.0, 1.0}}, options);
    torch::optim::AdamW theirs(pair.theirs, torch::optim::AdamWOptions(1e-2).weight_decay(decay).betas({options.beta1, options.beta2}).eps(options.epsilon));
    for (int step = 0; step < 12; ++step) {
      at::Tensor gradient = torch::zeros({700, 96});
      if (step % 3 == 0) gradient.narrow(0, step * 10, 7).normal_();
      pair.ours[0].mutable_grad() = gradient.clone();
      pair.theirs[0].mutable_grad() = gradient.clone();
      if (step == 6) {  // goes on from a checkpoint
        Optimizer resumed({{{{"e", pair.ours[0]}}, 1.0, 1.0}}, options);
        const torch::NoGradGuard no_grad;
        auto to = resumed.state();
        const auto from = ours->state();
        for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_(from[i].second);
        *ours = std::move(resumed);
      }
      ours->step(1e-2);
      theirs.step();
    }
    EXPECT_TRUE(torch::allclose(pair.ours[0], pair.theirs[0], 1e-6, 1e-7)) << decay << ": " << (pair.ours[0] - pair.theirs[0]).abs().max();
  }
}

TEST(Optimizer, GroupsScaleTheirLearningRate) {
  auto pair = parameters();
  auto groups = groups_of(pair);
  groups[1].learning_rate_scale = 0;
  config::TrainOptions options;
  options.optimizer = "sgd";
  Optimizer optimizer(std::move(groups), options);
  set_gradients(pair);
  optimizer.step(0.1);
  EXPECT_FALSE(torch::equal(pair.ours[0], pair.theirs[0]));
  EXPECT_TRUE(torch::equal(pair.ours[2], pair.theirs[2]));
}

TEST(Schedule, FollowsTransformersFormulas) {
  config::TrainOptions options;
  options.learning_rate = 1;
  options.warmup = 0.1;
  options.schedule = "cosine";
  EXPECT_DOUBLE_EQ(learning_rate_at(0, 100, options), 0);
  EXPECT_DOUBLE_EQ(learning_rate_at(5, 100, options), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(10, 100, options), 1);
  EXPECT_NEAR(learning_rate_at(55, 100, options), 0.5, 1e-12);
  options.schedule = "linear";
  EXPECT_NEAR(learning_rate_at(55, 100, options), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate_at(99, 100, options), 1.0 / 90, 1e-12);
  options.schedule = "constant";
  EXPECT_DOUBLE_EQ(learning_rate_at(99, 100, options), 1);
  options.warmup = 0;
  EXPECT_DOUBLE_EQ(learning_rate_at(0, 100, options), 1);
}

TEST(Loop, ItsCommentDrawsEveryEventInTheOrderOfTheList) {
  const auto text = read_text(ATTUNE_SOURCE_DIR "/framework/train/loop.cpp");
  auto at = text.find("//   RUN_BEGIN");
  ASSERT_NE(at, std::string::npos);
  int events = 0;
  for (; *name(static_cast<Event>(events)); ++events) {
    std::string drawn = name(static_cast<Event>(events));
    std::transform(drawn.begin(), drawn.end(), drawn.begin(), [](unsigned char c) { return std::toupper(c); });
    at = text.find(drawn, at);
    ASSERT_NE(at, std::string::npos) << drawn << " is not drawn, or not after the event before it";
    EXPECT_NE(text.find("fire(Event::" + std::string(name(static_cast<Event>(events))) + ")"), std::string::npos) << drawn << " is never fired";
  }
  EXPECT_EQ(events, 10);
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
