// Whole plugins in a host that is linked as the program is: one copy of the framework, in the shared library.
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/plugin.hpp>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "registry/loader.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

fs::path fixture(const std::string& name) { return fs::canonical(fs::path(ATTUNE_BINARY_DIR) / "tests" / "fixtures" / (name + ".so")); }

/// embed, one linear block with a bias, and a projection without.
struct ToyModel final : Model {
  struct Parts : torch::nn::Module {
    std::shared_ptr<nn::Linear> block = register_module("block", std::make_shared<nn::Linear>(4, 4, true));
    std::shared_ptr<nn::Linear> head = register_module("head", std::make_shared<nn::Linear>(4, 2, false));
  };
  ToyModel() : Model(ModelSpec{.family = "toy", .width = 4, .depth = 1, .outputs = 2}) {}
  at::Tensor embed(const Batch& batch) override { return torch::ones({batch.length(), 4}); }
  at::Tensor block(std::int64_t, const at::Tensor& h, const Batch&) override { return parts.block->forward(h); }
  at::Tensor finish(const at::Tensor& h, const Batch&) override { return h; }
  nn::Linear& projection() override { return *parts.head; }
  torch::nn::Module& module() override { return parts; }
  nlohmann::json config() const override { return {}; }
  std::string block_prefix(std::int64_t) const override { return "block."; }
  Parts parts;
};

std::vector<std::string> names_of(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) names.push_back(name);
  return names;
}

TEST(StrategyPlugin, IsBuiltFromItsOptionsAndWorksOnTheHostsModel) {
  Registry registry;
  const auto loaded = load_plugins(registry, {fixture("bitfit_fixture")});
  ASSERT_EQ(loaded.size(), 1);
  EXPECT_EQ(loaded[0].name, "bitfit_fixture");
  EXPECT_NE(loaded[0].build_id, "unknown");

  const auto& entry = registry.find(Kind::strategy, "bitfit");
  EXPECT_EQ(entry.plugin, "bitfit_fixture 1.0.0");
  EXPECT_EQ(entry.file, fixture("bitfit_fixture"));
  ASSERT_EQ(entry.schema.options.size(), 2);
  EXPECT_EQ(entry.schema.options[1].name, "train_head");

  const auto options = entry.defaults();
  entry.schema.options[1].set(options.get(), false);
  const auto strategy = std::static_pointer_cast<Strategy>(entry.build(options.get(), nullptr));
  ToyModel model;
  strategy->prepare(model);
  EXPECT_EQ(names_of(trainable(model)), std::vector<std::string>{"block.bias"});

  const auto with_head = std::static_pointer_cast<Strategy>(entry.build(entry.defaults().get(), nullptr));
  with_head->prepare(model);
  EXPECT_EQ(names_of(trainable(model)), (std::vector<std::string>{"block.bias", "head.weight"}));
}

TEST(Loader, LoadsAFileOnceIntoARegistry) {
  Registry registry;
  EXPECT_EQ(load_plugins(registry, {fixture("bitfit_fixture"), fixture("bitfit_fixture")}).size(), 1);
  EXPECT_EQ(load_plugins(registry, {fixture("bitfit_fixture")}).size(), 0);
  EXPECT_EQ(registry.names(Kind::strategy), std::vector<std::string>{"bitfit"});
}

TEST(Loader, RefusesANameTakenTwiceNamingBothFiles) {
  Registry registry;
  try {
    load_plugins(registry, {fixture("twice_one"), fixture("twice_two")});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "the callback 'twice' is registered twice, by " + fixture("twice_one").string() + " (twice_one 1.0.0) and by " +
              fixture("twice_two").string() + " (twice_two 1.0.0); rename one of them, or take one library out of the plugin folders");
  }
  EXPECT_TRUE(registry.entries().empty());
}

TEST(Loader, TakesAStrategyFromANewRegistryAfterTheOldOneIsGone) {
  std::shared_ptr<Strategy> strategy;
  {
    Registry registry;
    load_plugins(registry, {fixture("bitfit_fixture")});
    const auto& entry = registry.find(Kind::strategy, "bitfit");
    strategy = std::static_pointer_cast<Strategy>(entry.build(entry.defaults().get(), nullptr));
  }
  ToyModel model;
  strategy->prepare(model);
  EXPECT_EQ(trainable(model).size(), 2);
}

}  // namespace
}  // namespace attune
