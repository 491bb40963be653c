// Run files: what is accepted, and how every mistake is reported.
#include <attune/error.hpp>
#include <gmock/gmock.h>

#include <fstream>

#include "config/document.hpp"
#include "config/run_config.hpp"
#include "core/files.hpp"

namespace attune {

// Interfaces stand in for real plugins: only names and options are looked at here.
class Model {};
class Dataset {};
class Strategy {};
class Callback {};

namespace {

using config::Document;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Plain {
  using Options = NoOptions;
};

struct Lora : Strategy {
  struct Options {
    std::int64_t rank = 8;
    double alpha = 16;
    std::vector<std::string> targets{"all-linear"};
    bool rslora = false;
    static void describe(Schema<Options>& s) {
      s.key("rank", &Options::rank, "rank").range(1, 4096);
      s.key("alpha", &Options::alpha, "alpha").above(0);
      s.key("targets", &Options::targets, "targets");
      s.key("rslora", &Options::rslora, "rslora");
    }
  };
  explicit Lora(Options) {}
};

struct Llama : Model, Plain {};
struct Instruction : Dataset, Plain {
  explicit Instruction(Options) {}
};
struct Quiet : Callback, Plain {
  explicit Quiet(Options) {}
};
struct Checkpoint : Callback {
  struct Options {
    std::int64_t every = 0;
    static void describe(Schema<Options>& s) { s.key("every", &Options::every, "every").at_least(0); }
  };
  explicit Checkpoint(Options) {}
};

Registry make_registry() {
  Registry registry;
  registry.add({Kind::model, "llama", "", "", "", {}, [] { return std::make_shared<NoOptions>(); }, {}});
  registry.dataset<Instruction>("instruction");
  registry.strategy<Lora>("lora");
  registry.callback<Quiet>("progress");
  registry.callback<Quiet>("jsonl");
  registry.callback<Checkpoint>("checkpoint");
  return registry;
}

constexpr const char* good = R"(name = "run"
seed = 7

[model]
plugin = "llama"
path = "models/x"

[dataset]
plugin = "instruction"
path = "data.h5"

[strategy]
plugin = "lora"
rank = 16
targets = "q_proj"

[train]
steps = 100
learning_rate = 1e-3

[checkpoint]
every = 25

[slurm]
nodes = 2
)";

class RunFile : public testing::Test {
 protected:
  config::RunConfig read(const std::string& text, const std::vector<std::string>& overrides = {}) {
    write_text(path_, text);
    return config::read_run(Document::parse(path_, overrides), registry_);
  }
  std::string mistakes(const std::string& text, const std::vector<std::string>& overrides = {}) {
    try {
      read(text, overrides);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  }
  static std::string with(std::string text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  }

  Registry registry_ = make_registry();
  std::filesystem::path path_ = std::filesystem::temp_directory_path() / ("attune_config_test_" + std::to_string(::getpid()) + ".toml");
  void TearDown() override { std::filesystem::remove(path_); }
};

TEST_F(RunFile, FillsEverySection) {
  const auto config = read(good);
  EXPECT_EQ(config.run.name, "run");
  EXPECT_EQ(config.run.seed, 7);
  EXPECT_EQ(config.train.steps, 100);
  EXPECT_DOUBLE_EQ(config.train.learning_rate, 1e-3);
  const auto& lora = *static_cast<const Lora::Options*>(config.strategies[0].options.get());
  EXPECT_EQ(lora.rank, 16);
  EXPECT_EQ(lora.targets, std::vector<std::string>{"q_proj"});
  ASSERT_EQ(config.callbacks.size(), 3u);
  EXPECT_EQ(config.callbacks[2].entry->name, "checkpoint");
  EXPECT_EQ(static_cast<const Checkpoint::Options*>(config.callbacks[2].options.get())->every, 25);
}

TEST_F(RunFile, OverridesWinAndKnowWhereTheyCameFrom) {
  const auto config = read(good, {"train.learning_rate=5e-5", "name=second", "strategy.targets=[\"a\", \"b\"]", "evaluate.every=5"});
  EXPECT_DOUBLE_EQ(config.train.learning_rate, 5e-5);
  EXPECT_EQ(config.run.name, "second");
  EXPECT_EQ(config.evaluate.every, 5);
  std::map<std::string, std::string> origin;
  for (const auto& [section, all] : config.effective)
    for (const auto& setting : all) origin[section + "." + setting.name] = setting.origin;
  EXPECT_EQ(origin["train.learning_rate"], "command line");
  EXPECT_EQ(origin[".name"], "command line");
  EXPECT_EQ(origin["train.steps"], path_.string() + ":18:9");
  EXPECT_EQ(origin["train.clip"], "default");
}

TEST_F(RunFile, TheEffectiveFileReadsBackTheSame) {
  const auto first = read(good, {"train.epsilon=1e-9", "strategy.rslora=true"});
  const auto second = read(first.to_toml());
  EXPECT_EQ(first.to_toml(), second.to_toml());
  EXPECT_DOUBLE_EQ(second.train.epsilon, 1e-9);
  EXPECT_TRUE(static_cast<const Lora::Options*>(second.strategies[0].options.get())->rslora);
}

TEST_F(RunFile, ListsSeveralStrategiesAndOverridesThemByTheirPlugin) {
  const auto one = std::string("[strategy]\nplugin = \"lora\"");
  ASSERT_NE(std::string(good).find(one), std::string::npos);
  const auto text = with(good, one, "[[strategy]]\nplugin = \"lora\"\nrank = 2\n[[strategy]]\nplugin = \"lora\"");
  const auto config = read(text, {"strategy.lora.rank=9"});
  ASSERT_EQ(config.strategies.size(), 2u);
  EXPECT_EQ(static_cast<const Lora::Options*>(config.strategies[0].options.get())->rank, 9);
  EXPECT_EQ(static_cast<const Lora::Options*>(config.strategies[1].options.get())->rank, 16);
  EXPECT_EQ(read(config.to_toml()).to_toml(), config.to_toml());
  EXPECT_THAT(mistakes(text, {"strategy.dora.rank=9"}), HasSubstr("'strategy.dora': the file has a list of [[strategy]]"));
  EXPECT_THAT(mistakes(text, {"strategy.rank=9"}), HasSubstr("strategy.NAME.key=value"));
}

TEST_F(RunFile, ReportsFiveMistakesAtOnceEachWithItsPlace) {
  auto text = with(good, "seed = 7", "sead = 7");
  text = with(text, "rank = 16", "rank = 0");
  text = with(text, "steps = 100", "steps = \"many\"");
  text = with(text, "plugin = \"instruction\"", "plugin = \"instructoin\"");
  text = with(text, "every = 25", "evry = 25");
  const auto said = mistakes(text);
  EXPECT_THAT(said, HasSubstr(path_.string() + ":2:1: unknown key 'sead'; did you mean 'seed'?"));
  EXPECT_THAT(said, HasSubstr(":9:10: "));
  EXPECT_THAT(said, HasSubstr("'instruction'"));
  EXPECT_THAT(said, HasSubstr(":14:8: 'rank' is 0, it must be at least 1 and at most 4096"));
  EXPECT_THAT(said, HasSubstr(":18:9: 'steps' must be integer, but is a text"));
  EXPECT_THAT(said, HasSubstr("unknown key 'evry'; did you mean 'every'?"));
}

TEST_F(RunFile, RefusesKeysThatContradictEachOther) {
  EXPECT_THAT(mistakes(with(good, "steps = 100", "steps = 100\nepochs = 2.0")), HasSubstr(":19:10: 'steps' and 'epochs' contradict each other"));
  EXPECT_THAT(mistakes(with(good, "steps = 100", "micro_batch = 32\nglobal_batch = 16\nsteps = 1")), HasSubstr("'micro_batch' (32) is larger than 'global_batch' (16)"));
  EXPECT_THAT(mistakes(with(good, "steps = 100\n", "")), HasSubstr("needs 'steps' or 'epochs'"));
  EXPECT_THAT(mistakes(good + std::string("[[callback]]\nplugin = \"checkpoint\"\nevery = 3\n")), HasSubstr("say the same thing"));
}

TEST_F(RunFile, RefusesWhatItCannotDo) {
  EXPECT_THAT(mistakes(with(good, "steps = 100", "micro_batch = \"auto\"\nsteps = 1") + "[parallel]\nreproducible = true\n"), HasSubstr("give a number"));
  EXPECT_THAT(mistakes(with(good, "steps = 100", "micro_batch = \"all\"\nsteps = 1")), HasSubstr("'micro_batch' must be integer or 'auto'"));
  EXPECT_THAT(mistakes(with(good, "steps = 100", "time_limit = \"soon\"\nsteps = 1")), HasSubstr("which is no time"));
  EXPECT_THAT(mistakes(with(good, "name = \"run\"", "name = \"../up\"")), HasSubstr("'name' becomes a directory's name"));
}

TEST_F(RunFile, OnTheCommandLineATextNeedsNoQuotes) {
  const std::map<std::string, std::string> typed{{"30", "30"}, {"01:00:00", "01:00:00"}, {"1-12:00:00", "1-12:00:00"}, {"\"45\"", "45"}};
  for (const auto& [text, value] : typed) EXPECT_EQ(read(good, {"train.time_limit=" + text}).train.time_limit, value) << text;
  EXPECT_THAT(mistakes("name = 30\n"), HasSubstr("'name' must be text, but is an integer")) << "in a file it does";
}

TEST_F(RunFile, NamesWhatIsMissing) {
  const auto said = mistakes("seed = 1\n");
  EXPECT_THAT(said, AllOf(HasSubstr("'name' is missing"), HasSubstr("[model] is missing"), HasSubstr("[dataset] is missing"), HasSubstr("[strategy] is missing")));
}

TEST_F(RunFile, RefusesWhatIsNotToml) {
  EXPECT_THAT(mistakes("name = \n"), HasSubstr(path_.string() + ":1:"));
  EXPECT_THAT(mistakes(good, {"no-equals-sign"}), HasSubstr("section.key=value"));
  EXPECT_THAT(mistakes(good, {"train.steps=none"}), HasSubstr("command line: 'steps' must be integer, but is a text"));
}

TEST(TimeLimit, IsReadAsSbatchDoes) {
  const std::map<std::string, double> seconds{{"90", 5400}, {"0:30", 30}, {"2:00:00", 7200}, {"1-0", 86400}, {"1-02:03", 93780}, {"1-02:03:04", 93784}};
  for (const auto& [text, expected] : seconds) EXPECT_EQ(attune::config::seconds_of(text), expected) << text;
  for (const auto* text : {"", "soon", "1:2:3:4", "-5", "1h"}) EXPECT_EQ(attune::config::seconds_of(text), std::nullopt) << text;
}

TEST(ToToml, QuotesWhatNeedsIt) {
  EXPECT_EQ(to_toml(OptionValue(std::string("a \"b\"\n"))), R"("a \"b\"\n")");
  EXPECT_EQ(to_toml(OptionValue(1.0)), "1.0");
  EXPECT_EQ(to_toml(OptionValue(1e-9)), "1e-09");
  EXPECT_EQ(to_toml(OptionValue(std::vector<std::string>{"a", "b"})), R"(["a", "b"])");
  EXPECT_EQ(to_toml(OptionValue(OptionMap{{"text", "t"}})), R"({ "text" = "t" })");
}

}  // namespace
}  // namespace attune
