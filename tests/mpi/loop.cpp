// The training loop in this process: order of events, requests, resume, and values that are not
// finite.
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include "config/document.hpp"
#include "core/files.hpp"
#include "example.hpp"
#include "parallel/mpi.hpp"
#include "prepare/prepare.hpp"
#include "registry/loader.hpp"
#include "run_directory/places.hpp"
#include "train/loop.hpp"

namespace attune {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* run_text = R"(
name = "run"
output = "{0}/runs"
plugins = ["{1}/plugins"]
[model]
plugin = "llama"
path = "{0}/model"
[dataset]
plugin = "corpus"
path = "{0}/texts.h5"
[strategy]
plugin = "lora"
rank = 4
[train]
steps = 4
global_batch = 4
micro_batch = 2
learning_rate = 1e-2
schedule = "constant"
[evaluate]
samples = 4
[checkpoint]
staged = false
)";

/// Records events as "name step", and asks for what it is told to ask for.
class Watcher final : public Callback {
 public:
  using Ask = std::function<void(const Run&, Requests&)>;
  explicit Watcher(Ask ask) : ask_(std::move(ask)) {}
  void on(Event event, const Run& run, Requests& requests) override {
    seen.push_back(fmt::format("{} {}", name(event), run.step));
    if (event == Event::step_end && ask_) ask_(run, requests);
  }
  std::vector<std::string> seen;

 private:
  Ask ask_;
};

struct Done {
  train::Outcome outcome;
  std::vector<std::string> events;
  std::vector<at::Tensor> trained;
};

class Loop : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = std::make_unique<Comm>(attune::world());
    on_root(world(), [] {
      fs::remove_all(folder());
      program::write_example(folder(), {"llama", "corpus"});
      write_text(folder() / "run.toml",
                 fmt::format(fmt::runtime(run_text), folder().string(), ATTUNE_BINARY_DIR));
    });
    Registry registry;
    load_plugins(registry, {ATTUNE_BINARY_DIR "/plugins"});
    const auto recipe =
        Recipe::parse(config::Document::parse(folder() / "texts.toml", {"window=16"}), registry);
    prepare(recipe, registry, world(), {});
  }

  static void TearDownTestSuite() { world_.reset(); }

  static const Comm& world() { return *world_; }
  static fs::path folder() {
    return fmt::format("{}/tests/loop.{}", ATTUNE_BINARY_DIR, world().size());
  }

  /// A run under that name; the first callback is replaced by a Watcher.
  static Done run(const std::string& name, std::vector<std::string> overrides = {},
                  const train::Resume& resume = {}, Watcher::Ask ask = {}) {
    overrides.push_back("name=" + name);
    auto opened = train::open_run(folder() / "run.toml", overrides, world());
    auto session = train::Session::open(opened.config, opened.mesh);
    train::identify_base(session);
    const auto watcher = std::make_shared<Watcher>(std::move(ask));
    session.callbacks.front() = watcher;
    on_root(world(), [&] {
      const auto directory = opened.config.directory();
      fs::create_directories(directory);
      write_text(run_directory::run_file(directory), opened.config.to_toml());
    });
    Done done;
    done.outcome = train::run_loop(session, resume);
    done.events = watcher->seen;
    for (const auto& [parameter, tensor] : session.strategies->trained())
      done.trained.push_back(tensor.detach().clone());
    return done;
  }

  static void expect_same_bits(const Done& one, const Done& other) {
    ASSERT_EQ(one.trained.size(), other.trained.size());
    for (std::size_t i = 0; i < one.trained.size(); ++i)
      EXPECT_TRUE(at::equal(one.trained[i], other.trained[i])) << "tensor " << i;
  }

 private:
  static inline std::unique_ptr<Comm> world_;
};

TEST_F(Loop, EventsComeInOneOrder) {
  const auto done = run("events", {"train.steps=2", "evaluate.every=2", "checkpoint.every=1"});
  EXPECT_THAT(
      done.events,
      ElementsAre("run_begin 0", "epoch_begin 0", "step_begin 0", "gradients_ready 0", "step_end 1",
                  "checkpoint_saved 1", "step_begin 1", "gradients_ready 1", "step_end 2",
                  "evaluated 2", "epoch_end 2", "checkpoint_saved 2", "run_end 2"));
  EXPECT_EQ(done.outcome.step, 2);
  EXPECT_LT(done.outcome.found.tuned.at("loss"), done.outcome.found.base.at("loss"));
}

TEST_F(Loop, WhatOneRankAsksForAllRanksDo) {
  const auto last = world().size() - 1;
  const auto done = run("asked", {}, {}, [&](const attune::Run& now, Requests& requests) {
    if (world().rank() != last) return;
    if (now.step == 1) requests.checkpoint();
    if (now.step == 2) requests.stop("seen enough");
  });
  EXPECT_EQ(done.outcome.step, 2);
  EXPECT_EQ(done.outcome.interrupted_by, "");
  EXPECT_THAT(done.outcome.stop_reason, HasSubstr("seen enough"));
  EXPECT_THAT(done.events, testing::Contains("checkpoint_saved 1"));
}

TEST_F(Loop, AResumedRunGoesOnExactly) {
  const auto whole = run("whole");
  run("parts", {"train.steps=2"});
  const auto resumed = run("parts", {}, {.wanted = true, .anyway = true});
  EXPECT_EQ(resumed.events.front(), "run_begin 2");
  EXPECT_EQ(resumed.outcome.step, 4);
  expect_same_bits(whole, resumed);
}

TEST_F(Loop, StepsThatAreNotFiniteAreSkippedOrEndTheRun) {
  const std::vector<std::string> diverging{"train.learning_rate=1e30", "train.clip=0",
                                           "train.steps=3"};
  auto skipping = diverging;
  skipping.emplace_back("train.on_not_finite=skip");
  const auto done = run("skips", skipping);
  EXPECT_EQ(done.outcome.step, 3);
  EXPECT_EQ(done.outcome.skipped_steps, 2) << "all after the first update";
  EXPECT_THAT(done.events, testing::Not(testing::Contains("gradients_ready 1")));
  try {
    run("stops", diverging);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 2"));
  }
}

}  // namespace
}  // namespace attune
