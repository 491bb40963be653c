// What every plugin promises (attune/testing.hpp), of every optimizer, schedule and strategy that
// comes with Attune: those that are registered, not those that a list names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <attune/linear.hpp>
#include <attune/testing.hpp>

#include "registry/loader.hpp"

namespace {

using namespace attune;
using ::testing::HasSubstr;

const Registry& registry() {
  static const Registry registry = [] {
    Registry loaded;
    load_plugins(loaded, {ATTUNE_BINARY_DIR "/plugins"});
    return loaded;
  }();
  return registry;
}

template <class Interface>
std::shared_ptr<Interface> made(Kind kind, const std::string& name,
                                const std::map<std::string, OptionValue>& values = {}) {
  const auto& entry = registry().find(kind, name);
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options)
    if (values.contains(option.name)) option.set(options.get(), values.at(option.name));
  return std::static_pointer_cast<Interface>(entry.build(options.get(), nullptr));
}

std::string broken(const std::function<void()>& check) {
  try {
    check();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(Promises, OfEveryOptimizer) {
  for (const auto& name : registry().names(Kind::optimizer))
    EXPECT_EQ(
        broken([&] {
          attune::testing::check_optimizer([&] { return made<Optimizer>(Kind::optimizer, name); });
        }),
        "")
        << name;
}

TEST(Promises, OfEverySchedule) {
  for (const auto& name : registry().names(Kind::schedule))
    EXPECT_EQ(
        broken([&] {
          attune::testing::check_schedule([&] { return made<Schedule>(Kind::schedule, name); });
        }),
        "")
        << name;
}

/// What a strategy needs beside its defaults, and the model that it serves.
struct Case {
  std::map<std::string, OptionValue> options;
  Task task = Task::next_token;
  std::string over = {};  // the strategy that it extends
};
const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> cases{
      {"bitfit", {{{"norms", true}}}},
      {"lora", {{{"rank", std::int64_t{4}}}}},
      {"linear_probe", {{}, Task::classification}},
      {"class_weights", {{}, Task::classification}},
      {"distill", {{{"teacher", "toy"}}}},
      {"ewc", {{{"data", ""}}}},
      {"prompt", {{{"tokens", std::int64_t{3}}}}},
      {"quantize", {{}, Task::next_token, "lora"}},
  };
  return cases;
}
/// And those that are not for a toy run: why.
const std::map<std::string, std::string>& elsewhere() {
  static const std::map<std::string, std::string> all{
      {"contrastive", "makes embeddings; unit.strategies and plugins.recipes train it"},
      {"kto",
       "its reference point is a mean over the micro-batch, not a sum over samples; "
       "plugins.matrix trains it"},
  };
  return all;
}

TEST(Promises, OfEveryStrategy) {
  for (const auto& name : registry().names(Kind::strategy)) {
    if (elsewhere().contains(name)) continue;
    const auto& known = cases();
    const Case one = known.contains(name) ? known.at(name) : Case{};
    const auto make = [&] { return made<Strategy>(Kind::strategy, name, one.options); };
    attune::testing::MakeStrategy over;
    if (!one.over.empty())
      over = [&] { return made<Strategy>(Kind::strategy, one.over, known.at(one.over).options); };
    EXPECT_EQ(broken([&] { attune::testing::check_strategy(make, one.task, over); }), "") << name;
  }
}

TEST(Promises, OfTheToyModels) {
  for (const auto task : {Task::next_token, Task::classification, Task::token_classification}) {
    const auto model = attune::testing::toy_model(task);
    EXPECT_EQ(
        broken([&] { attune::testing::check_model(*model, attune::testing::toy_batch(*model)); }),
        "");
  }
}

// ---- Each check finds what it is for.

struct Careless : Strategy {
  void prepare(ModelView& view) override { view.train(view.model().module()); }
};

TEST(Promises, AChangedBaseIsFound) {
  struct Changes final : Careless {
    void prepare(ModelView& view) override { view.train(view.model().projection().weight); }
    void on_step(Model& model, std::int64_t) override {
      const torch::NoGradGuard no_grad;
      model.module().parameters()[0].add_(1);
    }
  };
  EXPECT_THAT(
      broken([] { attune::testing::check_strategy([] { return std::make_shared<Changes>(); }); }),
      HasSubstr("'model.embed_tokens.weight', which is not trained, keeps its bits"));
}

TEST(Promises, ALossThatIsAMeanIsFound) {
  struct Means final : Careless {
    Loss loss(Model& model, const ForwardContext& context, const LossFunction& inner) override {
      auto loss = inner(model, context);
      loss.sum = loss.sum / static_cast<double>(loss.count);
      return loss;
    }
  };
  EXPECT_THAT(
      broken([] { attune::testing::check_strategy([] { return std::make_shared<Means>(); }); }),
      HasSubstr("Loss::sum of a batch is the sum over its samples in evaluation"));
}

TEST(Promises, WhatIsLostOnResumeIsFound) {
  struct Forgets final : Careless {
    void on_step(Model&, std::int64_t) override { ++steps; }
    Loss loss(Model& model, const ForwardContext& context, const LossFunction& inner) override {
      auto loss = inner(model, context);
      if (context.is_training()) loss.sum = loss.sum * (1.0 + steps);
      return loss;
    }
    int steps = 0;
  };
  EXPECT_THAT(
      broken([] { attune::testing::check_strategy([] { return std::make_shared<Forgets>(); }); }),
      HasSubstr("has the same bits after a resume: what it depends on is given by state()"));
}

TEST(Promises, WhatAnOptimizerKeepsForItselfIsFound) {
  struct Counts final : Optimizer {
    std::vector<StateSpec> state(const ParameterSpec&) const override { return {}; }
    void update(std::vector<ParameterUpdate>& parameters, const UpdateRates&) override {
      ++updates;
      for (auto& each : parameters) each.parameter.sub_(each.gradient, 0.1 * updates);
    }
    int updates = 0;
  };
  EXPECT_THAT(
      broken([] { attune::testing::check_optimizer([] { return std::make_shared<Counts>(); }); }),
      HasSubstr("update 2 of a Float of shape [5, 7] depends on what state() declares alone"));
}

TEST(Promises, AnOptimizerThatLooksAtTheWholeIsNotElementwise) {
  struct Normed final : Optimizer {
    bool is_elementwise() const override { return true; }
    std::vector<StateSpec> state(const ParameterSpec&) const override { return {}; }
    void update(std::vector<ParameterUpdate>& parameters, const UpdateRates&) override {
      for (auto& each : parameters)
        each.parameter.sub_(each.gradient / each.gradient.norm().clamp_min(1e-3), 0.1);
    }
  };
  EXPECT_THAT(
      broken([] { attune::testing::check_optimizer([] { return std::make_shared<Normed>(); }); }),
      HasSubstr("a parameter in two pieces is updated as a whole one"));
}

TEST(Promises, AScheduleThatCountsItsCallsIsFound) {
  struct Counts final : Schedule {
    double factor(const ScheduleStep&) const override { return 1.0 / ++calls; }
    mutable int calls = 0;
  };
  EXPECT_THAT(
      broken([] { attune::testing::check_schedule([] { return std::make_shared<Counts>(); }); }),
      HasSubstr("is the same whatever was asked for before it"));
}

}  // namespace
