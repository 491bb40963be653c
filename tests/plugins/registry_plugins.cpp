// Whole plugins in a host that holds the one copy of the framework.
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/plugin.hpp>
#include <gtest/gtest.h>
#include <link.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "registry/loader.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

fs::path fixture(const std::string& name) {
  return fs::canonical(fs::path(ATTUNE_BINARY_DIR) / "tests" / "fixtures" / (name + ".so"));
}

/// embed, one linear block with a bias, and a projection without.
struct ToyModel final : Model {
  struct Parts : torch::nn::Module {
    std::shared_ptr<nn::Linear> block =
        register_module("block", std::make_shared<nn::Linear>(4, 4, true));
    std::shared_ptr<nn::Linear> head =
        register_module("head", std::make_shared<nn::Linear>(4, 2, false));
  };
  ToyModel() : Model(ModelSpec{.family = "toy", .width = 4, .depth = 1, .outputs = 2}) {}
  at::Tensor embed(ForwardContext& context) override {
    return torch::ones({context.batch().length(), 4});
  }
  at::Tensor block(std::int64_t, const at::Tensor& h, ForwardContext& context) override {
    return parts.block->forward(h, context);
  }
  at::Tensor finish(const at::Tensor& h, ForwardContext&) override { return h; }
  nn::Linear& projection() override { return *parts.head; }
  torch::nn::Module& module() override { return parts; }
  nlohmann::json config() const override { return {}; }
  std::string block_name(std::int64_t) const override { return "block."; }
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
  ModelView view(model);
  strategy->prepare(view);
  EXPECT_EQ(names_of(view.trained()), std::vector<std::string>{"block.bias"});

  const auto with_head =
      std::static_pointer_cast<Strategy>(entry.build(entry.defaults().get(), nullptr));
  ModelView another(model);
  with_head->prepare(another);
  EXPECT_EQ(names_of(another.trained()), (std::vector<std::string>{"block.bias", "head.weight"}));
}

/// The files of this process whose names end so.
std::vector<fs::path> open_libraries(const std::string& name) {
  struct Search {
    std::string name;
    std::vector<fs::path> found;
  } search{name, {}};
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& [name, found] = *static_cast<Search*>(data);
        if (std::string_view(info->dlpi_name).ends_with(name)) found.push_back(info->dlpi_name);
        return 0;
      },
      &search);
  return search.found;
}

TEST(StrategyPlugin, FindsOneCopyOfTheFrameworkInThisProcess) {
  Registry registry;
  load_plugins(registry, {fixture("bitfit_fixture")});
  const auto copies = open_libraries("/libattune.so.0");
  ASSERT_EQ(copies.size(), 1) << "the stand-in, which is empty";
  EXPECT_EQ(fs::canonical(copies[0]).parent_path(),
            fs::canonical(fs::path(ATTUNE_BINARY_DIR) / "tests" / "stand_in"));
}

TEST(Loader, LoadsAFileOnceIntoARegistry) {
  Registry registry;
  EXPECT_EQ(load_plugins(registry, {fixture("bitfit_fixture"), fixture("bitfit_fixture")}).size(),
            1);
  EXPECT_EQ(load_plugins(registry, {fixture("bitfit_fixture")}).size(), 0);
  EXPECT_EQ(registry.names(Kind::strategy), std::vector<std::string>{"bitfit"});
}

TEST(Loader, RefusesANameTakenTwiceNamingBothFiles) {
  Registry registry;
  try {
    load_plugins(registry, {fixture("twice_one"), fixture("twice_two")});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "the callback 'twice' is registered twice, by " + fixture("twice_one").string() +
                  " (twice_one 1.0.0) and by " + fixture("twice_two").string() +
                  " (twice_two 1.0.0); rename one of them, or remove one library from the plugin "
                  "folders");
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
  ModelView view(model);
  strategy->prepare(view);
  EXPECT_EQ(view.trained().size(), 2);
}

}  // namespace
}  // namespace attune
