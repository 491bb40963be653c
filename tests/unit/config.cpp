// Run files: what is accepted, and how every mistake is reported.
#include <attune/error.hpp>
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>

#include "config/document.hpp"
#include "config/run_config.hpp"
#include "core/files.hpp"
#include "core/names.hpp"

namespace attune {

// Interfaces stand in for real plugins: only names and options are looked at here.
class Model {};
class Dataset {};
class Strategy {};
class Callback {};
class Optimizer {};
class Schedule {};

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
    NumberMap rank_pattern;
    std::vector<std::int64_t> rows;
    static void describe(Schema<Options>& s) {
      s.key("rank", &Options::rank, "rank").range(1, 4096);
      s.key("alpha", &Options::alpha, "alpha").above(0);
      s.key("targets", &Options::targets, "targets");
      s.key("rslora", &Options::rslora, "rslora");
      s.key("rank_pattern", &Options::rank_pattern, "rank_pattern");
      s.key("rows", &Options::rows, "rows");
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
struct AdamW : Optimizer {
  struct Options {
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    static void describe(Schema<Options>& s) {
      s.key("beta1", &Options::beta1, "beta1").at_least(0).below(1);
      s.key("beta2", &Options::beta2, "beta2").at_least(0).below(1);
      s.key("epsilon", &Options::epsilon, "epsilon").above(0);
    }
  };
  explicit AdamW(Options) {}
};
struct Sgd : Optimizer {
  struct Options {
    double momentum = 0;
    bool nesterov = false;
    static void describe(Schema<Options>& s) {
      s.key("momentum", &Options::momentum, "momentum").at_least(0).below(1);
      s.key("nesterov", &Options::nesterov, "nesterov");
    }
  };
  explicit Sgd(Options options) {
    if (options.nesterov && options.momentum == 0) fail("'nesterov' needs a 'momentum' above 0");
  }
};
struct Cosine : Schedule {
  struct Options {
    double minimum = 0;
    static void describe(Schema<Options>& s) {
      s.key("minimum", &Options::minimum, "minimum").range(0, 1);
    }
  };
  explicit Cosine(Options) {}
};

Registry make_registry() {
  Registry registry;
  registry.add(
      {Kind::model, "llama", "", "", "", {}, [] { return std::make_shared<NoOptions>(); }, {}});
  registry.dataset<Instruction>("instruction");
  registry.strategy<Lora>("lora");
  registry.callback<Quiet>("progress");
  registry.callback<Quiet>("jsonl");
  registry.optimizer<AdamW>("adamw");
  registry.optimizer<Sgd>("sgd");
  registry.schedule<Cosine>("cosine");
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
  std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                ("attune_config_test_" + std::to_string(::getpid()) + ".toml");
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
  ASSERT_EQ(config.callbacks.size(), 2u);
  EXPECT_EQ(config.checkpoint.every, 25);
}

TEST_F(RunFile, EverySettingHasTheRoleThatItDeclares) {
  const auto config = read(good, {"train.optimizer=sgd"});
  std::map<std::string, OptionRole> role;
  for (const auto& [section, all] : config.effective)
    for (const auto& setting : all) role[section + "." + setting.name] = setting.role;
  for (const char* name : {"model.plugin", "model.dtype", "strategy.plugin", "strategy.rank",
                           "strategy.adapter", "optimizer.plugin"})
    EXPECT_EQ(role.at(name), OptionRole::identity) << name;
  for (const char* name :
       {".seed", "dataset.plugin", "dataset.shuffle_block", "train.steps", "train.learning_rate",
        "train.precision", "optimizer.momentum", "schedule.plugin", "evaluate.every",
        "parallel.threads", "parallel.reproducible"})
    EXPECT_EQ(role.at(name), OptionRole::setting) << name;
  for (const char* name :
       {".name", ".output", ".plugins", "model.path", "model.allowed_licences", "dataset.path",
        "train.recompute", "train.time_limit", "train.on_not_finite", "train.prefix_folder",
        "checkpoint.every", "checkpoint.keep_best", "parallel.device", "parallel.binding",
        "parallel.watchdog", "slurm.nodes"})
    EXPECT_EQ(role.at(name), OptionRole::location) << name;
}

TEST_F(RunFile, ANamedChoiceIsAValueOfAnEnum) {
  EXPECT_EQ(read(good).train.precision, config::FloatType::float32);
  const auto config = read(good, {"train.precision=bfloat16", "parallel.device=cpu"});
  EXPECT_EQ(config.train.precision, config::FloatType::bfloat16);
  EXPECT_EQ(config.parallel.device, "cpu");
  EXPECT_THAT(config.to_toml(), testing::HasSubstr("precision = \"bfloat16\""));
  EXPECT_THAT(mistakes(good, {"train.precision=bfloat"}),
              testing::HasSubstr("'precision' is 'bfloat', it must be one of float32, bfloat16; "
                                 "did you mean 'bfloat16'?"));
}

TEST_F(RunFile, WhatIsAskedOfSlurmIsWhatTheFileGives) {
  const auto asked = read(good, {"slurm.cpus_per_task=4"}).asked;
  EXPECT_EQ(asked.nodes, 2);
  EXPECT_EQ(asked.cpus_per_task, 4);
  EXPECT_FALSE(asked.tasks_per_node || asked.gpus_per_node);
}

TEST_F(RunFile, AMicroBatchThatIsNotGivenFitsTheBatch) {
  EXPECT_EQ(read(good, {"train.global_batch=2"}).train.micro_batch, 2);
  EXPECT_THAT(mistakes(good, {"train.global_batch=2", "train.micro_batch=4"}),
              testing::HasSubstr("'micro_batch' (4) is larger than 'global_batch' (2)"));
}

TEST_F(RunFile, OverridesWinAndKnowWhereTheyCameFrom) {
  const auto config = read(good, {"train.learning_rate=5e-5", "name=second",
                                  "strategy.targets=[\"a\", \"b\"]", "evaluate.every=5"});
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
  EXPECT_DOUBLE_EQ(static_cast<const AdamW::Options*>(second.optimizer.options.get())->epsilon,
                   1e-9);
  EXPECT_TRUE(static_cast<const Lora::Options*>(second.strategies[0].options.get())->rslora);
}

TEST_F(RunFile, TakesOptimizerAndScheduleAsSectionsOrByNameInTrain) {
  const auto of = [](const config::RunConfig& run) {
    return *static_cast<const Sgd::Options*>(run.optimizer.options.get());
  };
  const auto unnamed = read(good);
  EXPECT_EQ(unnamed.optimizer.entry->name, "adamw");
  EXPECT_EQ(unnamed.schedule.entry->name, "cosine");
  const auto by_name =
      read(good, {"train.optimizer=sgd", "train.momentum=0.9", "train.schedule=cosine"});
  EXPECT_EQ(by_name.optimizer.entry->name, "sgd");
  EXPECT_DOUBLE_EQ(of(by_name).momentum, 0.9);
  const auto sections =
      good +
      std::string(
          "[optimizer]\nplugin = \"sgd\"\nmomentum = 0.9\n[schedule]\nplugin = \"cosine\"\n");
  EXPECT_EQ(read(sections).to_toml(), by_name.to_toml()) << "one effective form";
  EXPECT_TRUE(of(read(sections, {"optimizer.nesterov=true"})).nesterov);
  EXPECT_DOUBLE_EQ(static_cast<const Cosine::Options*>(
                       read(sections, {"schedule.minimum=0.1"}).schedule.options.get())
                       ->minimum,
                   0.1);
  EXPECT_EQ(config::plugin_names(Document::parse_text(sections, "run.toml")).back(), "cosine");
}

TEST_F(RunFile, TheOriginOfAShortFormIsWhereItStands) {
  std::map<std::string, std::string> origin;
  for (const auto& [section, all] :
       read(with(good, "steps = 100", "beta1 = 0.8\nsteps = 100"), {"train.optimizer=adamw"})
           .effective)
    for (const auto& setting : all) origin[section + "." + setting.name] = setting.origin;
  EXPECT_EQ(origin["optimizer.plugin"], "command line");
  EXPECT_EQ(origin["optimizer.beta1"], path_.string() + ":18:9");
  EXPECT_EQ(origin["optimizer.beta2"], "default");
  EXPECT_EQ(origin["schedule.plugin"], "default");
  EXPECT_EQ(origin.count("train.optimizer") + origin.count("train.schedule"), 0u);
}

TEST_F(RunFile, RefusesOptimizersAndSchedulesThatItCannotHave) {
  const auto sections =
      good + std::string("[optimizer]\nplugin = \"sgd\"\n[schedule]\nplugin = \"cosine\"\n");
  const std::vector<std::pair<std::vector<std::string>, std::string>> all{
      {{"train.optimizer=adam"},
       "command line: there is no optimizer 'adam'; did you mean 'adamw'? (there are: adamw, sgd)"},
      {{"train.schedule=cosin"}, "there is no schedule 'cosin'; did you mean 'cosine'?"},
      {{"train.optimizer=3.5"}, "'optimizer' must be text"},
      {{"train.momentum=0.9"},
       "'momentum' is not an option of the optimizer 'adamw', whose options are beta1, beta2, "
       "epsilon"},
      {{"train.beta1=2.0"}, "'beta1' is 2, it must be at least 0 and below 1"},
      {{"train.beta3=0.5"}, "unknown key 'beta3'; did you mean 'beta1'?"},
      {{"train.optimizer=sgd", "train.beta2=0.9"},
       "'beta2' is not an option of the optimizer 'sgd', whose options are momentum, nesterov"},
      {{"optimizer.momentum=0.9"}, "[optimizer] needs 'plugin', one of these names: adamw, sgd"},
  };
  for (const auto& [overrides, said] : all) EXPECT_THAT(mistakes(good, overrides), HasSubstr(said));
  EXPECT_THAT(
      mistakes(sections, {"train.optimizer=sgd"}),
      HasSubstr(
          "'optimizer' is also set by [optimizer]: keep one of them, or write optimizer.plugin"));
  EXPECT_THAT(mistakes(sections, {"train.momentum=0.9"}),
              HasSubstr("'momentum' is an option of the optimizer: write it in [optimizer]"));
  EXPECT_THAT(mistakes(sections, {"optimizer.momentun=0.9"}),
              HasSubstr("unknown key 'momentun'; did you mean 'momentum'?"));
  EXPECT_THAT(mistakes(sections, {"schedule.minimum=1.5"}),
              HasSubstr("'minimum' is 1.5, it must be at least 0 and at most 1"));
  EXPECT_THAT(mistakes(sections, {"optimizer.nesterov=true"}),
              HasSubstr(":26:1: optimizer 'sgd': 'nesterov' needs a 'momentum' above 0"));
  EXPECT_EQ(mistakes(good, {"train.optimizer=sgd", "train.beta1=0.9", "train.epsilon=1e-8"}),
            "none")
      << "what earlier run directories say of the other optimizer";
}

TEST_F(RunFile, KeepsNumbersInTheirWrittenOrder) {
  const auto patterns = [&](const std::string& value,
                            const std::vector<std::string>& overrides = {}) {
    const auto config = read(with(good, "rank = 16", "rank = 16\n" + value), overrides);
    EXPECT_EQ(read(config.to_toml()).to_toml(), config.to_toml());
    return static_cast<const Lora::Options*>(config.strategies[0].options.get())->rank_pattern;
  };
  const NumberMap expected{{"z", 1}, {"a", 2}, {"m", 3}};
  EXPECT_EQ(patterns(R"(rank_pattern = { "z" = 1, "a" = 2, "m" = 3.0 })"), expected);
  EXPECT_EQ(patterns("rank_pattern.z = 1\nrank_pattern.a = 2\nrank_pattern.m = 3"), expected);
  EXPECT_EQ(patterns("rank_pattern = { m = 3 }", {"strategy.rank_pattern={ z = 1, a = 2 }"}),
            (NumberMap{{"m", 3}, {"z", 1}, {"a", 2}}))
      << "those of the command line come last";
  EXPECT_EQ(patterns("rank_pattern = { b = 3, a = 1 }", {"strategy.rank_pattern.b=2"}),
            (NumberMap{{"a", 1}, {"b", 2}}));
  EXPECT_EQ(patterns("", {"strategy.rank_pattern.q=2", "strategy.rank_pattern={ c = 4, b = 5 }",
                          "strategy.rank_pattern.a=1"}),
            (NumberMap{{"q", 2}, {"c", 4}, {"b", 5}, {"a", 1}}));
  for (const char* number : {"9007199254740993", "-9223372036854775807"})
    EXPECT_THAT(mistakes(with(good, "rank = 16",
                              fmt::format("rank_pattern = {{ a = 1, b = {} }}", number))),
                HasSubstr("too large to be represented exactly"));
}

TEST_F(RunFile, TakesListsOfIntegers) {
  const auto config = read(with(good, "rank = 16", "rows = [7, 3]"), {"strategy.rows=[5, 1]"});
  EXPECT_EQ(static_cast<const Lora::Options*>(config.strategies[0].options.get())->rows,
            (std::vector<std::int64_t>{5, 1}));
  EXPECT_THAT(config.to_toml(), HasSubstr("rows = [5, 1]"));
  EXPECT_THAT(mistakes(with(good, "rank = 16", "rows = 7")),
              HasSubstr("'rows' must be list of integers, but is an integer: write [1, 2]"));
  EXPECT_THAT(mistakes(with(good, "rank = 16", "rows = [7, \"a\"]")),
              HasSubstr("'rows' must be list of integers, but is a list with elements that "
                        "are not integers"));
}

TEST_F(RunFile, ListsSeveralStrategiesAndOverridesThemByTheirPlugin) {
  const auto one = std::string("[strategy]\nplugin = \"lora\"");
  ASSERT_NE(std::string(good).find(one), std::string::npos);
  const auto text =
      with(good, one, "[[strategy]]\nplugin = \"lora\"\nrank = 2\n[[strategy]]\nplugin = \"lora\"");
  const auto config = read(text, {"strategy.lora.rank=9"});
  ASSERT_EQ(config.strategies.size(), 2u);
  EXPECT_EQ(static_cast<const Lora::Options*>(config.strategies[0].options.get())->rank, 9);
  EXPECT_EQ(static_cast<const Lora::Options*>(config.strategies[1].options.get())->rank, 16);
  EXPECT_EQ(read(config.to_toml()).to_toml(), config.to_toml());
  EXPECT_THAT(mistakes(text, {"strategy.dora.rank=9"}),
              HasSubstr("'strategy.dora': the file has a list of [[strategy]]"));
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
  EXPECT_THAT(mistakes(with(good, "steps = 100", "steps = 100\nepochs = 2.0")),
              HasSubstr(":19:10: 'steps' and 'epochs' contradict each other"));
  EXPECT_THAT(mistakes(with(good, "steps = 100", "micro_batch = 32\nglobal_batch = 16\nsteps = 1")),
              HasSubstr("'micro_batch' (32) is larger than 'global_batch' (16)"));
  EXPECT_THAT(mistakes(with(good, "steps = 100\n", "")), HasSubstr("needs 'steps' or 'epochs'"));
  EXPECT_THAT(mistakes(good + std::string("[[callback]]\nplugin = \"checkpoint\"\nevery = 3\n")),
              HasSubstr("'checkpoint' is not a callback: write its options under [checkpoint]"));
}

TEST_F(RunFile, RefusesWhatItCannotDo) {
  EXPECT_THAT(mistakes(with(good, "steps = 100", "micro_batch = \"auto\"\nsteps = 1") +
                       "[parallel]\nreproducible = true\n"),
              HasSubstr("give a number"));
  EXPECT_THAT(mistakes(with(good, "steps = 100", "micro_batch = \"all\"\nsteps = 1")),
              HasSubstr("'micro_batch' must be integer or 'auto'"));
  EXPECT_THAT(mistakes(with(good, "steps = 100", "time_limit = \"soon\"\nsteps = 1")),
              HasSubstr("which is not a time"));
  EXPECT_THAT(mistakes(with(good, "name = \"run\"", "name = \"../up\"")),
              HasSubstr("'name' becomes a directory's name"));
}

TEST_F(RunFile, OnTheCommandLineATextNeedsNoQuotes) {
  const std::map<std::string, std::string> typed{
      {"30", "30"}, {"01:00:00", "01:00:00"}, {"1-12:00:00", "1-12:00:00"}, {"\"45\"", "45"}};
  for (const auto& [text, value] : typed)
    EXPECT_EQ(read(good, {"train.time_limit=" + text}).train.time_limit, value) << text;
  EXPECT_THAT(mistakes("name = 30\n"), HasSubstr("'name' must be text, but is an integer"))
      << "in a file it does";
}

TEST_F(RunFile, NamesWhatIsMissing) {
  const auto said = mistakes("seed = 1\n");
  EXPECT_THAT(said, AllOf(HasSubstr("'name' is missing"), HasSubstr("[model] is missing"),
                          HasSubstr("[dataset] is missing"), HasSubstr("[strategy] is missing")));
}

/// A mistake in an otherwise good file: what is replaced by what, the words that must be said, and
/// those that must not.
struct Mistake {
  std::string from;
  std::string to;
  std::vector<std::string> said;
  std::vector<std::string> unsaid{};
};

TEST_F(RunFile, TheCauseIsNamedWhenItStandsInTheFile) {
  const std::vector<Mistake> all{
      {"[strategy]\nplugin =",
       "[strategy]\npulgin =",
       {":13:1: unknown key 'pulgin'; did you mean 'plugin'? [strategy] needs it, one of these "
        "names: lora"},
       {"is missing"}},
      {"[strategy]\nplugin = \"lora\"\nrank",
       "[strategy]\npulgin = \"lora\"\nrnak",
       {"unknown key 'pulgin'", ":14:1: unknown key 'rnak'; did you mean 'rank'?"}},
      {"[strategy]\nplugin =",
       "[strategy]\nmethod =",
       {":13:1: unknown key 'method'; did you mean 'plugin'?"}},
      {"[strategy]\nplugin =",
       "[strategy]\nname =",
       {":13:1: unknown key 'name'; did you mean 'plugin'?"}},
      {"[strategy]\nplugin = \"lora\"",
       "[strategy]",
       {":12:1: [strategy] needs 'plugin', one of these names: lora"}},
      {"plugin = \"lora\"", "plugin = 3", {":13:10: [strategy] needs 'plugin', a name in quotes"}},
      {"plugin = \"lora\"",
       "plugin = \"LoRA\"",
       {":13:10: there is no strategy 'LoRA'; did you mean 'lora'?"}},
      {"[strategy]",
       "[stratgy]",
       {":12:2: unknown key 'stratgy'; did you mean 'strategy'?"},
       {"is missing"}},
      {"[strategy]",
       "[[strategies]]",
       {"unknown key 'strategies'; did you mean 'strategy'?"},
       {"is missing"}},
      {"[train]",
       "[training]",
       {":17:2: unknown key 'training'; did you mean 'train'?"},
       {"needs 'steps'"}},
      {"[train]",
       "[[train]]",
       {"'train' must be a table, [train], but is a list: write it with one pair of brackets"}},
      {"[model]",
       "[[model]]",
       {"'model' must be a table, [model], but is a list: write it with one pair of brackets"},
       {"needs 'plugin'"}},
      {"[train]\nsteps",
       "[train]\nstpes",
       {":18:1: unknown key 'stpes'; did you mean 'steps'?"},
       {"needs 'steps'"}},
      {"name = \"run\"",
       "nmae = \"run\"",
       {":1:1: unknown key 'nmae'; did you mean 'name'?"},
       {"is missing"}},
      {"rank = 16",
       "rank = 16\nlearning_rate = 1e-3",
       {":15:1: unknown key 'learning_rate'; 'learning_rate' belongs to [train]"}},
      {"rank = 16",
       "rank = 16\nseed = 1",
       {":15:1: unknown key 'seed'; 'seed' belongs to the top of the file, before the first "
        "[section]"}},
      {"steps = 100",
       "steps = 100\nrank = 8",
       {":19:1: unknown key 'rank'; 'rank' is an option of the strategy 'lora'"}},
      {"seed = 7",
       "seed = 7\nsteps = 5",
       {":3:1: unknown key 'steps'; 'steps' belongs to [train]"}},
      {"steps = 100",
       "steps = 100\nwholly_unknown = 1",
       {":19:1: unknown key 'wholly_unknown'; the keys here are steps, epochs"}},
      {"steps = 100",
       "steps = 100.0",
       {":18:9: 'steps' must be integer, but is a number: write 100"}},
      {"steps = 100",
       "steps = \"100\"",
       {":18:9: 'steps' must be integer, but is a text: write 100 without quotes"}},
      {"rank = 16",
       "rank = 16\nrslora = \"true\"",
       {"'rslora' must be boolean, but is a text: write true without quotes"}},
      {"rank = 16",
       "rank = 16\nrslora = 1",
       {"'rslora' must be boolean, but is an integer: write true"}},
      {"name = \"run\"",
       "name = 30",
       {":1:8: 'name' must be text, but is an integer: write \"30\""}},
      {"steps = 100",
       "steps = 100\nprecision = 32",
       {"'precision' must be text, but is an integer: write \"float32\" or \"bfloat16\""}},
      {"targets = \"q_proj\"",
       "targets = [\"q_proj\", 3]",
       {"'targets' must be list of texts, but is a list with elements that are not texts: "
        "write each in quotes"}},
      {"path = \"data.h5\"",
       "path = [\"data.h5\"]",
       {"'path' must be text, but is a list: write it without [ ]"}},
      {"nodes = 2",
       "nodes = 2\ntime = 01:00:00",
       {"'time' must be text, but is a date or time: write it in quotes"}},
      {"nodes = 2",
       "nodes = 2\nenvironment = [\"A=1\"]",
       {"'environment' must be table of texts, but is a list: write { name = \"value\" }"}},
      {"name = \"run\"", "name = \"\"", {":1:8: 'name' is empty, but it names a directory"}},
      {"name = \"run\"", "name = \".\"", {":1:8: 'name' becomes a directory's name"}},
      {"name = \"run\"", "name = \"..\"", {":1:8: 'name' becomes a directory's name"}},
      {"name = \"run\"", "name = \"a/../../b\"", {":1:8: 'name' becomes a directory's name"}},
      {"name = \"run\"",
       "name = \"two\\nlines\"",
       {":1:8: 'name' becomes a directory's name: it must be a single line"}},
      {"seed = 7",
       "output = \"\"",
       {":2:10: 'output' is empty: name a folder, or \".\" for this one"}},
  };
  for (const auto& mistake : all) {
    const auto said = mistakes(with(good, mistake.from, mistake.to));
    for (const auto& words : mistake.said) EXPECT_THAT(said, HasSubstr(words)) << mistake.to;
    for (const auto& words : mistake.unsaid) EXPECT_THAT(said, Not(HasSubstr(words))) << mistake.to;
  }
}

TEST_F(RunFile, OfALineThatIsNotTomlItIsSaidWhatToWrite) {
  const std::vector<Mistake> all{
      {"plugin = \"lora\"",
       "plugin = lora",
       {":13:10: ", "write a text in quotes: plugin = \"lora\""}},
      {"path = \"models/x\"",
       "path = models/x  # here",
       {":6:8: ", "write a text in quotes: path = \"models/x\""}},
      {"rank = 16", "rank: 16", {":14:5: ", "this looks like YAML: write key = value"}},
      {"rank = 16", "rank", {":14:5: ", "write key = value, or [section]"}},
      {"rank = 16",
       "rank = 16\nrank = 8",
       {":15:", "'rank' is already set in line 14: keep one of them"}},
      {"[slurm]",
       "[train]",
       {":24:1: ", "a section may appear only once: put all of its keys below one header"}},
      {"name = \"run\"", "name = \"run", {":1:", "the quote at the end of the text is missing"}},
      {"path = \"data.h5\"",
       "path = \"C:\\data\\new.h5\"",
       {":10:", "write the text in single quotes, path = 'C:\\data\\new.h5'"}},
      {"path = \"data.h5\"",
       "path = 'Anna's.h5'",
       {":10:", "write a text with an apostrophe in double quotes: path = \"Anna's.h5\""}},
      {"rank = 16", "rslora = True", {":14:10: ", "write rslora = true"}},
      {"rank = 16",
       "rslora = yes",
       {":14:", "write rslora = true, or rslora = \"yes\" when it is a text"}},
      {"rank = 16", "rank = None", {":14:8: ", "TOML has no null: remove the line"}},
      {"rank = 16", "rank =", {":14:", "the value is missing"}},
      {"rank = 16", "rank == 16", {":14:", "one = is enough: rank = 16"}},
      {"rank = 16", "rank = 16,", {":14:10: ", "a value ends with its line: remove the ','"}},
      {"rank = 16", "rank = 16;", {":14:10: ", "remove the ';'"}},
      {"rank = 16", "rank = 016", {":14:", "write rank = 16"}},
      {"rank = 16", "alpha = .5", {":14:", "write alpha = 0.5"}},
      {"rank = 16", "alpha = 5.", {":14:", "write alpha = 5.0"}},
      {"nodes = 2", "memory = 64G", {":25:", "write a text in quotes: memory = \"64G\""}},
      {"nodes = 2", "time = 30:00:00", {":25:", "write a text in quotes: time = \"30:00:00\""}},
      {"rank = 16", "// the rank", {":14:1: ", "comments begin with #"}},
      {"rank = 16", "plugin2 = “lora”", {":14:", "these are a word processor's quotes"}},
      {"targets = \"q_proj\"",
       "targets = [\"q_proj\" \"k_proj\"]",
       {":15:", "write the elements of a list in [ ], separated by commas"}},
      {"targets = \"q_proj\"",
       "targets = [\"q_proj\",",
       {":17:", "the list that begins in line 15 is not closed with ]"}},
      {"[train]\nsteps = 100",
       "[train]\nsteps = [1,\nclip = 1.0",
       {"the list that begins in line 18 is not closed with ]"}},
      {"[train]", "[train", {":17:7: ", "write a section's name in brackets"}},
      {"nodes = 2", "environment = { A = \"1\"\n}", {":25:", "write a table in { } on one line"}},
      {"name = \"run\"", "{ \"name\": \"run\" }", {":1:1: ", "this looks like JSON"}},
      {"name = \"run\"", "name = \"caf\xE9\"", {":1:", "the file is not UTF-8: save it as UTF-8"}},
      {"nodes = 2",
       "[[callback]]\n[callback]",
       {"is written as [[name]], with two pairs of brackets"}},
  };
  for (const auto& mistake : all) {
    const auto said = mistakes(with(good, mistake.from, mistake.to));
    for (const auto& words : mistake.said) EXPECT_THAT(said, HasSubstr(words)) << mistake.to;
    EXPECT_EQ(said.find('\n'), std::string::npos) << "one sentence: " << said;
  }
  EXPECT_THAT(mistakes(std::string("\xFF\xFEn\0a\0m\0", 8)),
              HasSubstr("the file is UTF-16: save it as UTF-8"));
}

TEST_F(RunFile, AnotherKindOfFileIsRecognised) {
  EXPECT_THAT(mistakes("name = \"x\"\nkind = \"instruction\"\n[[source]]\npath = \"a\"\n"),
              HasSubstr("is a recipe, not a run file: give it to `attune prepare`"));
  EXPECT_THAT(mistakes("name = \"x\"\nrun = \"run.toml\"\n[values]\nseed = [1]\n"),
              HasSubstr("is a sweep file, not a run file: give it to `attune sweep`"));
}

TEST_F(RunFile, RefusesWhatIsNotToml) {
  EXPECT_THAT(mistakes("name = \n"), HasSubstr(path_.string() + ":1:"));
  EXPECT_THAT(mistakes(good, {"no-equals-sign"}), HasSubstr("section.key=value"));
  EXPECT_THAT(mistakes(good, {"train.steps=none"}),
              HasSubstr("command line: 'steps' must be integer, but is a text"));
}

TEST(Names, TheirNumbersSortAsNumbers) {
  std::vector<std::string> names{"seeds-10",  "seeds-2",  "step-1000000", "step-999999", "a",
                                 "seeds-2-b", "seeds-02", "b1x",          "b01y"};
  std::sort(names.begin(), names.end(), natural_less);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b1x", "b01y", "seeds-02", "seeds-2", "seeds-2-b",
                                             "seeds-10", "step-999999", "step-1000000"}));
}

/// A run file of another folder, to which its paths refer.
class FromElsewhere : public RunFile {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "models/x");
    std::filesystem::create_directory(folder_ / "runs");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  config::RunConfig read(const std::vector<std::string>& overrides = {}) const {
    auto document = Document::parse_text(good, "run.toml", overrides);
    document.folder = folder_;
    return config::read_run(document, registry_);
  }
  static std::string listed(const config::RunConfig& run, const std::string& section) {
    for (const auto& [name, settings] : run.effective)
      for (const auto& setting : settings)
        if (name == section && setting.name == "path") return setting.value;
    return "";
  }

  const std::filesystem::path folder_ = path_.string() + ".d";
};

TEST_F(FromElsewhere, RelativePathsReferToTheFolderAndAreListedAsWritten) {
  const auto run = read({"model.path=models/y"});
  EXPECT_EQ(run.dataset.path, folder_ / "data.h5");
  EXPECT_EQ(run.directory(), folder_ / "runs/run");
  EXPECT_EQ(listed(run, "dataset"), "\"data.h5\"");
  EXPECT_EQ(run.model.path, std::filesystem::current_path() / "models/y")
      << "a path of the command line is of the current folder";
  EXPECT_EQ(listed(run, "model"), to_toml(OptionValue(run.model.path)));
}

TEST_F(FromElsewhere, ARunUnderAnotherNameIsOfTheCurrentFolder) {
  const auto run = read({"name=another"});
  EXPECT_EQ(run.directory(), "runs/another");
  EXPECT_EQ(run.folder, "") << "to which its listed paths refer";
  EXPECT_EQ(run.dataset.path, folder_ / "data.h5");
  EXPECT_EQ(listed(run, "dataset"), to_toml(OptionValue(run.dataset.path)));
}

TEST_F(FromElsewhere, APathThatIsOnlyHereIsTakenFromHere) {
  EXPECT_EQ(config::reached_from(folder_, "models/x"), folder_ / "models/x");
  EXPECT_EQ(config::reached_from(folder_ / "gone", "."), ".");
  EXPECT_EQ(config::reached_from(folder_, "/absolute"), "/absolute");
  EXPECT_EQ(config::reached_from("", "models/x"), "models/x");
}

TEST(TimeLimit, IsReadAsSbatchDoes) {
  const std::map<std::string, double> seconds{{"90", 5400},       {"0:30", 30},
                                              {"2:00:00", 7200},  {"1-0", 86400},
                                              {"1-02:03", 93780}, {"1-02:03:04", 93784}};
  for (const auto& [text, expected] : seconds)
    EXPECT_EQ(attune::config::seconds_of(text), expected) << text;
  for (const auto* text : {"", "soon", "1:2:3:4", "-5", "1h"})
    EXPECT_EQ(attune::config::seconds_of(text), std::nullopt) << text;
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
