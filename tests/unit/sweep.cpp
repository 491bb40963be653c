// Sweeps: which trials there are, which of them go on, and how ranks were started.
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "errors.hpp"
#include "slurm/launch.hpp"
#include "sweep/halving.hpp"
#include "sweep/plan.hpp"
#include "sweep/results.hpp"

namespace attune::sweep {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Sweep sweep(const std::string& toml) {
  return read_sweep(
      config::Document::parse_text("name = \"s\"\nrun = \"run.toml\"\n" + toml, "sweep.toml"));
}

std::vector<std::string> names(const Sweep& sweep) {
  std::vector<std::string> all;
  for (const auto& trial : sweep.trials) all.push_back(trial.name);
  return all;
}

TEST(Plan, AGridIsEveryCombinationUnderReadableNames) {
  const auto grid =
      sweep("[values]\n\"train.learning_rate\" = [1e-4, 1e-3]\n\"strategy.rank\" = [4, 8]\n");
  EXPECT_THAT(names(grid),
              ElementsAre("rank=4,learning_rate=0.0001", "rank=4,learning_rate=0.001",
                          "rank=8,learning_rate=0.0001", "rank=8,learning_rate=0.001"));
  EXPECT_THAT(grid.trials[0].overrides,
              ElementsAre("strategy.rank=4", "train.learning_rate=0.0001",
                          "name=\"rank=4,learning_rate=0.0001\"", "output=\"sweeps/s\""));
}

TEST(Plan, NamesStayWhenValuesAreAdded) {
  const auto before = names(sweep("[values]\n\"strategy.rank\" = [4, 8]\n"));
  const auto after = names(sweep("[values]\n\"strategy.rank\" = [2, 4, 16, 8]\n"));
  for (const auto& name : before) EXPECT_THAT(after, testing::Contains(name));
}

TEST(Plan, AValueThatIsNoGoodNameIsSummed) {
  const auto odd = sweep("[values]\n\"model.path\" = [\"models/a\", \"models/b\"]\n");
  EXPECT_TRUE(odd.trials[0].name.starts_with("trial-"));
  EXPECT_NE(odd.trials[0].name, odd.trials[1].name);
}

TEST(Plan, TrialsOfOptionsWithTheSameLastNameAreDifferent) {
  const auto both =
      sweep("[values]\n\"train.micro_batch\" = [2, 4]\n\"evaluate.micro_batch\" = [2, 4]\n");
  EXPECT_THAT(names(both), ElementsAre("evaluate.micro_batch=2,train.micro_batch=2",
                                       "evaluate.micro_batch=2,train.micro_batch=4",
                                       "evaluate.micro_batch=4,train.micro_batch=2",
                                       "evaluate.micro_batch=4,train.micro_batch=4"));
  const auto listed = sweep(
      "method = \"list\"\n[[trial]]\n\"train.micro_batch\" = "
      "2\n[[trial]]\n\"evaluate.micro_batch\" = 2\n");
  EXPECT_THAT(names(listed), ElementsAre("train.micro_batch=2", "evaluate.micro_batch=2"));
  const auto turned = sweep(
      "method = \"list\"\n[[trial]]\n\"evaluate.micro_batch\" = "
      "2\n[[trial]]\n\"train.micro_batch\" = 2\n");
  EXPECT_THAT(names(turned), ElementsAre("evaluate.micro_batch=2", "train.micro_batch=2"))
      << "whatever their order";
  const auto seeds = sweep("seeds = 2\n[values]\n\"train.clip\" = [1.0]\n\"dataset.seed\" = [1]\n");
  EXPECT_THAT(names(seeds),
              ElementsAre("dataset.seed=1,clip=1.0,seed=0", "dataset.seed=1,clip=1.0,seed=1"));
}

TEST(Plan, ATextAndANumberThatAreWrittenAlikeAreDifferent) {
  const auto trials = names(sweep("[values]\n\"train.time_limit\" = [\"30\", 30]\n"));
  ASSERT_EQ(trials.size(), 2);
  EXPECT_NE(trials[0], trials[1]);
}

TEST(Plan, AKeyInTheWrongPlaceIsToldWhereItBelongs) {
  EXPECT_THAT(error_of([] { sweep("first = 10\n[values]\n\"seed\" = [1]\n"); }),
              HasSubstr("'first' belongs to [halving]"));
  EXPECT_THAT(error_of([] {
                sweep("[values]\n\"seed\" = [1]\n[halving]\nfirst = 1\nmetric = \"loss\"\n");
              }),
              HasSubstr("'metric' belongs to the top of the sweep file"));
  EXPECT_THAT(error_of([] { sweep("\"train.clip\" = [1.0]\n"); }),
              HasSubstr("write values of the run file below [values]: \"train.clip\" = [...]"));
  EXPECT_THAT(error_of([] { sweep("[values]\nstrategy.rank = [1]\n"); }),
              HasSubstr("write keys with a dot in quotes: \"strategy.rank\""));
  EXPECT_THAT(error_of([] { sweep("[values]\n\"strategy.rank\" = { valeus = [1] }\n"); }),
              HasSubstr("unknown key 'valeus'; did you mean 'values'?"));
  EXPECT_THAT(error_of([] { sweep("trials = 3\n[values]\n\"seed\" = [1]\n"); }),
              HasSubstr("'trials' needs method = \"random\""));
}

TEST(Plan, ANameThatCanBeNoDirectoryIsRefused) {
  const auto named = [](const std::string& name) {
    return error_of([&] {
      read_sweep(config::Document::parse_text(
          "name = " + name + "\nrun = \"run.toml\"\n[values]\n\"seed\" = [1]\n", "sweep.toml"));
    });
  };
  EXPECT_THAT(named("\"\""), HasSubstr("sweep.toml:1:8: 'name' is empty"));
  EXPECT_THAT(named("\"..\""), HasSubstr("or start with '.'"));
  EXPECT_THAT(named("\"a/b\""), HasSubstr("it must not contain '/'"));
  EXPECT_THAT(named("\"a\\nb\""), HasSubstr("a single line"));
}

TEST(Plan, AConditionalValueIsTriedWhereItCounts) {
  const auto conditional = sweep(
      "[values]\n\"train.momentum\" = { values = [0.0, 0.9], when = { \"train.optimizer\" = "
      "\"sgd\" } }\n\"train.optimizer\" = [\"adamw\", \"sgd\"]\n");
  EXPECT_THAT(names(conditional), ElementsAre("optimizer=adamw", "optimizer=sgd,momentum=0.0",
                                              "optimizer=sgd,momentum=0.9"));
}

TEST(Plan, SeedsMultiplyTheTrials) {
  EXPECT_THAT(names(sweep("seeds = 2\n[values]\n\"strategy.rank\" = [4, 8]\n")),
              ElementsAre("rank=4,seed=0", "rank=4,seed=1", "rank=8,seed=0", "rank=8,seed=1"));
}

TEST(Plan, AListIsTakenAsItIs) {
  EXPECT_THAT(names(sweep("method = \"list\"\n[[trial]]\n\"strategy.rank\" = "
                          "4\n[[trial]]\n\"strategy.rank\" = 8\n\"train.clip\" = 0.5\n")),
              ElementsAre("rank=4", "rank=8,clip=0.5"));
}

TEST(Plan, DrawnTrialsLieInTheirRangesAndAreTheSameEveryTime) {
  const std::string toml =
      "method = \"random\"\ntrials = 50\nseed = 3\n[values]\n\"train.learning_rate\" = { low = "
      "1e-5, high = 1e-2, log = true }\n\"strategy.rank\" = { low = 2, high = 5 }\n\"train.clip\" "
      "= [0.5, 1.0]\n";
  const auto drawn = sweep(toml);
  ASSERT_EQ(drawn.trials.size(), 50);
  std::set<std::string> ranks;
  int below = 0;
  for (const auto& trial : drawn.trials)
    for (const auto& [key, value] : trial.values) {
      if (key == "strategy.rank") ranks.insert(value);
      if (key != "train.learning_rate") continue;
      EXPECT_GE(std::stod(value), 1e-5);
      EXPECT_LE(std::stod(value), 1e-2);
      below += std::stod(value) < std::sqrt(1e-5 * 1e-2);
    }
  EXPECT_EQ(ranks, (std::set<std::string>{"2", "3", "4", "5"}));
  EXPECT_GT(below, 10) << "by its logarithm, half lie below the geometric mean";
  EXPECT_EQ(names(drawn), names(sweep(toml)));
}

TEST(Plan, MistakesAreToldWithTheirPlaces) {
  EXPECT_THAT(error_of([] { sweep("metod = \"grid\"\n[values]\n\"a.b\" = [1]\n"); }),
              HasSubstr("sweep.toml:3:1: unknown key 'metod'; did you mean 'method'?"));
  EXPECT_THAT(error_of([] { sweep("[values]\n\"a.b\" = { low = 1, high = 2 }\n"); }),
              HasSubstr("needs method = \"random\""));
  EXPECT_THAT(
      error_of([] { sweep("[values]\n\"a.b\" = { values = [1], when = { \"c.d\" = 1 } }\n"); }),
      HasSubstr("'a.b' depends on 'c.d', which is not a value of this sweep"));
  EXPECT_THAT(error_of([] { sweep("[values]\n\"a.b\" = [1, 1]\n"); }),
              HasSubstr("two trials have the same values (b=1)"));
  EXPECT_THAT(error_of([] { sweep(""); }), HasSubstr("defines no trials"));
  EXPECT_THAT(
      error_of([] { sweep("method = \"random\"\ntrials = 3\n[values]\n\"a.b\" = [1, 2]\n"); }),
      HasSubstr("there are fewer than 3 different trials to draw"));
  EXPECT_THAT(error_of([] { sweep("[halving]\nfactor = 3\n[values]\n\"a.b\" = [1]\n"); }),
              HasSubstr("'first' is missing"));
}

TEST(Halving, RungsArePowersOfTheFactor) {
  const HalvingOptions options{5, 3};
  const auto steps = rungs(options);
  ASSERT_GT(steps.size(), 3);
  EXPECT_THAT(std::vector(steps.begin(), steps.begin() + 3), ElementsAre(5, 15, 45));
  EXPECT_TRUE(std::ranges::is_sorted(steps)) << "up to the largest number, and not over it";
  EXPECT_THAT(rungs({}), IsEmpty()) << "no halving";
}

TEST(Halving, TheBestThirdGoesOn) {
  std::map<std::string, double> values;
  for (int i = 0; i < 9; ++i) values[std::to_string(i)] = i;
  std::string falls;
  std::string rises;
  for (const auto& [trial, value] : values) {
    if (goes_on(values, trial, 3, Better::smaller)) falls += trial;
    if (goes_on(values, trial, 3, Better::larger)) rises += trial;
  }
  EXPECT_EQ(falls, "012");
  EXPECT_EQ(rises, "678");
}

TEST(Halving, TheFirstGoesOnAndWhatIsNoNumberDoesNot) {
  EXPECT_TRUE(goes_on({{"a", 3.0}}, "a", 3, Better::smaller));
  EXPECT_FALSE(goes_on({{"a", std::nan("")}}, "a", 3, Better::smaller));
}

TEST(Halving, WhatIsNotFiniteIsBetterThanNothing) {
  const double inf = std::numeric_limits<double>::infinity();
  const std::map<std::string, double> values{
      {"a", 1.0}, {"b", -inf}, {"c", inf}, {"d", std::nan("")}};
  for (const auto better : {Better::smaller, Better::larger}) {
    EXPECT_TRUE(goes_on(values, "a", 3, better));
    for (const char* trial : {"b", "c", "d"})
      EXPECT_FALSE(goes_on(values, trial, 3, better)) << trial;
  }
}

TEST(Halving, TheJournalHoldsWhatWasNotedByAnybody) {
  const auto folder = fs::temp_directory_path() / fmt::format("attune-unit-journal-{}", ::getpid());
  const Journal one(folder);
  const Journal other(folder);
  one.note("a", 5, 1.25);
  other.note("b", 5, -2.5);
  other.note("b", 5, -2.5);
  other.note("b", 15, 7);
  EXPECT_EQ(one.at(5), (std::map<std::string, double>{{"a", 1.25}, {"b", -2.5}}));
  EXPECT_THAT(one.at(45), IsEmpty());
  fs::remove_all(folder);
}

TEST(Results, ATableIsReadBackByAnyCsvReader) {
  EXPECT_EQ(csv({{"a", "b"}, {"1,2", "say \"x\""}}), "a,b\n\"1,2\",\"say \"\"x\"\"\"\n");
}

TEST(Results, TheBestComesFirstAndThoseWithoutAValueLast) {
  std::vector<Result> results(3);
  results[0].metric = 2.0;
  results[2].metric = 1.0;
  sort_by_metric(results, {"loss", Better::smaller});
  EXPECT_EQ(results[0].metric, 1.0);
  EXPECT_FALSE(results[2].metric);
  sort_by_metric(results, {"accuracy", Better::larger});
  EXPECT_EQ(results[0].metric, 2.0);
}

/// A sweep of ranks 2 and 4 whose trials' files the test writes.
class SweepFiles : public testing::Test {
 protected:
  SweepFiles()
      : folder_(fs::temp_directory_path() / fmt::format("attune-unit-results-{}", ::getpid())) {
    sweep_ = sweep("metric = \"accuracy\"\n[values]\n\"strategy.rank\" = [2, 4]\n");
    sweep_.options.output = folder_.string();
  }
  ~SweepFiles() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    write_text(sweep_.options.directory() / name, text);
  }

  void write_trial(const std::string& name, const std::string& log, const std::string& what,
                   const std::string& run_file) {
    write(name + "/metrics.jsonl", log);
    const nlohmann::json record{{"run_file", run_file},
                                {"history", {{{"what", "started"}}, {{"what", what}}}}};
    write(name + "/record.json", record.dump());
  }

  std::vector<Result> sorted() {
    auto results = read_results(sweep_);
    sort_by_metric(results, ranking_metric(sweep_, results));
    return results;
  }

  fs::path folder_;
  Sweep sweep_;
};

constexpr const char* begun =
    R"({"event":"run_begin","step":0,"steps":9,"trainable_parameters":77,"evaluation":{"loss":0.1,"accuracy":0.9}})"
    "\n";

std::string evaluated(int step, const std::string& loss, const std::string& accuracy) {
  return fmt::format(
             R"({{"event":"evaluated","step":{},"seconds":1.5,"evaluation":{{"loss":{},"accuracy":{}}}}})",
             step, loss, accuracy) +
         "\n";
}

TEST_F(SweepFiles, ATrialThatDivergedHasNoMetric) {
  write_trial("rank=2", begun + evaluated(3, "0.2", "0.8"), "started", "seed = 7\n");
  write("rank=2/not_finite.jsonl", "{\"step\":4}\n");
  write_trial("rank=4", begun + evaluated(9, "2.5", "0.30000000000000004"), "finished",
              "seed = 7\n");
  const auto results = sorted();
  EXPECT_EQ(results[0].trial->name, "rank=4");
  EXPECT_FALSE(results[1].metric);
  EXPECT_EQ(csv(full_table(sweep_, results)),
            "strategy.rank,seed,state,steps,seconds,trainable_parameters,evaluated_step,accuracy,"
            "loss,run_file_changes,trial\n"
            "4,7,done,9,1.5,77,9,0.30000000000000004,2.5,,rank=4\n"
            "2,7,failed,3,1.5,77,3,nan,nan,,rank=2\n");
}

TEST_F(SweepFiles, AnAccuracyBesideALossThatIsNoNumberRanksNothing) {
  write_trial("rank=2", begun + evaluated(9, "null", "0.99"), "finished", "");
  write_trial("rank=4", begun + evaluated(9, "1.0", "0.1"), "finished", "");
  const auto results = sorted();
  EXPECT_EQ(results[0].trial->name, "rank=4");
  EXPECT_FALSE(results[1].metric);
  EXPECT_EQ(full_table(sweep_, results)[2][8], "nan");
}

TEST_F(SweepFiles, NumbersThatAreNotFiniteAndDamageAreToldInTheTable) {
  const std::string nulls =
      R"({"event":"step_end","step":9,"seconds":null,"loss":null,"tokens_per_second":null,"scalars":{"kl":null}})";
  write_trial("rank=2", begun + evaluated(9, "null", "null") + nulls + "\n", "finished",
              "seed = 7\n");
  write_trial("rank=4", begun + std::string("garbage\n") + evaluated(9, "1.0", "0.5"), "finished",
              "no toml");
  const auto results = sorted();
  EXPECT_EQ(csv(full_table(sweep_, results)),
            "strategy.rank,seed,state,steps,seconds,trainable_parameters,evaluated_step,accuracy,"
            "loss,run_file_changes,trial\n"
            "4,,done,9,1.5,77,9,0.5,1,,rank=4\n"
            "2,7,done,9,1.5,77,9,nan,nan,,rank=2\n");
  EXPECT_EQ(result_table(sweep_, results)[2][4], "-");
  EXPECT_THAT(told_problems(results), ElementsAre(testing::MatchesRegex(
                                          "rank=4: metrics.jsonl is damaged at byte [0-9]+ .1 line "
                                          "is left out.; the run file in its record is damaged")));
}

TEST_F(SweepFiles, ATrialThatWasNotEvaluatedHasEmptyCells) {
  write_trial("rank=2", begun, "started", "");
  const auto results = sorted();
  EXPECT_EQ(csv(full_table(sweep_, results)),
            "strategy.rank,seed,state,steps,seconds,trainable_parameters,evaluated_step,accuracy,"
            "run_file_changes,trial\n"
            "2,,failed,0,0,77,,,,rank=2\n"
            "4,,new,0,0,,,,,rank=4\n");
}

TEST_F(SweepFiles, AnEvaluationIsFoundAtTheBeginningOfALongLog) {
  auto log = begun + evaluated(1, "0.5", "0.6");
  while (log.size() < 200000)
    log += R"({"event":"step_end","step":2,"loss":1.0,"tokens_per_second":10.0})"
           "\n";
  write_trial("rank=2", log, "interrupted", "");
  EXPECT_EQ(sorted()[0].metric, 0.6);
}

TEST_F(SweepFiles, WhatFailedAfterAnEvaluationComesAfterWhatDidNot) {
  write_trial("rank=2", begun + evaluated(3, "0.2", "0.8"), "started", "");
  write_trial("rank=4", begun + evaluated(9, "0.4", "0.6"), "finished", "");
  EXPECT_EQ(sorted()[0].trial->name, "rank=4");
}

TEST_F(SweepFiles, TrialsOfAnotherRunFileAreCounted) {
  const std::string before =
      "seed = 1\n[train]\nsteps = 5\n[[callback]]\nplugin = \"a\"\n[slurm]\ntime = \"5\"\n";
  write_trial("rank=2", begun, "finished", before);
  auto results = read_results(sweep_);
  const auto now = [&](const std::string& run_file) {
    note_changes(results, sweep_, {run_file, run_file});
    return told_changes(results, sweep_);
  };
  EXPECT_THAT(
      now("seed = 1\n[train]\nsteps = 5\n[[callback]]\nplugin = \"a\"\n[slurm]\ntime = \"9\"\n"),
      IsEmpty())
      << "where it ran is not what ran";
  EXPECT_THAT(
      now("seed = 2\n[train]\nclip = 1.0\nsteps = 6\n[[callback]]\nplugin = \"b\"\n"),
      ElementsAre(HasSubstr("1 of 2 trials ran with a different version of the run file run.toml; "
                            "different values: callback, seed, train.clip, train.steps;")));
}

TEST(Results, ASettingWithASeedThatFailedComesLast) {
  const auto plan = sweep("seeds = 2\n[values]\n\"strategy.rank\" = [2, 4]\n");
  std::vector<Result> results;
  for (const auto& trial : plan.trials)
    results.push_back({&trial, {}, "done", results.empty() ? std::optional(0.1) : 1.0});
  results[1].metric.reset();
  const auto table = setting_table(plan, results);
  ASSERT_EQ(table.size(), 3);
  EXPECT_THAT(table[1], ElementsAre("4", "2", "1.0000", "1.0000", "1.0000"));
  EXPECT_THAT(table[2], ElementsAre("2", "1", "0.1000", "0.1000", "0.1000"));
}

// ---- How ranks were started

Variables variables(std::map<std::string, std::string> all) {
  return [all = std::move(all)](const std::string& name) {
    return all.contains(name) ? all.at(name) : "";
  };
}

TEST(Launch, SrunWithoutPmixIsRefused) {
  EXPECT_THAT(
      slurm::wrong_start(variables({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}})),
      HasSubstr("srun started 4 tasks without PMIx"));
  EXPECT_EQ(slurm::wrong_start(variables(
                {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"PMIX_RANK", "0"}})),
            "");
}

TEST(Launch, ABatchScriptALoginNodeAndMpirunAreFine) {
  EXPECT_EQ(slurm::wrong_start(variables({})), "");
  EXPECT_EQ(slurm::wrong_start(
                variables({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}})),
            "");
  EXPECT_EQ(
      slurm::wrong_start(variables(
          {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"OMPI_COMM_WORLD_SIZE", "8"}})),
      "")
      << "mpirun's daemons are tasks of srun";
}

TEST(Launch, TasksThatMpiDoesNotSeeAreRefused) {
  const auto step =
      variables({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"PMI_RANK", "0"}});
  EXPECT_THAT(slurm::wrong_size(step, 1), HasSubstr("srun started 4 tasks, but MPI sees 1 rank:"));
  EXPECT_EQ(slurm::wrong_size(step, 4), "");
}

TEST(Launch, RanksThatAreNotThoseOfTheRunFileAreExplained) {
  using placement::RankPlace;
  const auto rank = [](const std::string& node, int gpus = 0) {
    return RankPlace{"host", {0, 1}, 8, gpus, 1, node};
  };
  EXPECT_THAT(slurm::differences({2, 2, {}, 2}, {rank("n1"), rank("n1"), rank("n2"), rank("n2")}),
              IsEmpty());
  EXPECT_THAT(slurm::differences({}, {rank("n1")}), IsEmpty()) << "nothing was asked";
  EXPECT_THAT(slurm::differences({2, {}, {}, {}}, {rank("n1")}),
              ElementsAre(HasSubstr("the ranks run on 1 node, but the run file asks for 2: give "
                                    "--nodes=2 to srun or sbatch")));
  EXPECT_THAT(slurm::differences({3, 2, {}, {}}, {rank("n1"), rank("n1"), rank("n2"), rank("n3")}),
              ElementsAre(HasSubstr("n2 and 1 other node: 1 rank for the node, but the run file "
                                    "asks for 2: give --ntasks-per-node=2")));
  EXPECT_THAT(
      slurm::differences({{}, {}, 2, {}}, {rank("n1"), rank("n1")}),
      ElementsAre(HasSubstr("n1: 0 visible GPUs for the node, but the run file asks for 2")));
  EXPECT_THAT(slurm::differences({{}, {}, 2, {}}, {rank("n1", 1), rank("n1", 1)}), IsEmpty())
      << "each its own";
  EXPECT_THAT(
      slurm::differences({1, 1, {}, 8}, {rank("n1")}),
      ElementsAre(HasSubstr(
          "n1: 2 processors for a rank, but the run file asks for 8: give --cpus-per-task=8")));
}

}  // namespace
}  // namespace attune::sweep
