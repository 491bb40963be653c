// The files of a run directory: what is written is read back, old files too; damage and newer
// versions are told.
#include <attune/metrics_log.hpp>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/lines.hpp"
#include "core/tail.hpp"
#include "errors.hpp"
#include "run_directory/evaluation.hpp"
#include "run_directory/jobs.hpp"
#include "run_directory/json_lines.hpp"
#include "run_directory/metrics_reader.hpp"
#include "run_directory/not_finite.hpp"
#include "run_directory/places.hpp"
#include "run_directory/progress.hpp"
#include "run_directory/record.hpp"
#include "run_files.hpp"

namespace attune::run_directory {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double inf = std::numeric_limits<double>::infinity();

using AnyRun = attune::Run;  // in fixtures, Run is GoogleTest's

class RunDirectory : public RunFiles {
 protected:
  /// A run at its first event.
  AnyRun begun() const {
    AnyRun run;
    run.directory = run_;
    run.steps = 40;
    run.parameters = 1000;
    run.trainable_parameters = 10;
    run.declared = {{"f1", Better::larger, "", "F1"},
                    {"loss", Better::smaller, "nats", "cross-entropy"}};
    run.metrics = {{"f1", 0.5}, {"loss", 2.5}};
    return run;
  }

  /// Events as the loop fires them.
  void log(const std::vector<Event>& events, AnyRun& run, std::uint64_t keep = 0) const {
    MetricsLog log(run_, keep);
    for (const auto event : events) {
      if (event == Event::step_end) ++run.step;
      log.write(event, run);
    }
  }
};

std::string step_line(int step, const std::string& loss = "2.0") {
  return fmt::format(
             R"({{"event":"step_end","step":{},"seconds":{}.5,"loss":{},"tokens_per_second":10.0}})",
             step, step, loss) +
         "\n";
}

constexpr const char* begin_line =
    R"({"event":"run_begin","step":0,"steps":40,"trainable_parameters":77})"
    "\n";

// ---- metrics.jsonl

TEST_F(RunDirectory, AMetricsLogIsReadBackAsItWasWritten) {
  auto run = begun();
  run.loss = 0.1 + 0.2;
  run.learning_rate = 1e-4;
  run.grad_norm = 3;
  run.step_tokens = 512;
  run.tokens_per_second = 1e6;
  run.seconds = 12.25;
  run.scalars = {{"reward", -1.5}};
  run.skipped_steps = 2;
  run.samples_without_target = 3;
  run.stop_reason = "loss has not improved";
  log({Event::run_begin, Event::epoch_begin, Event::step_begin, Event::gradients_ready,
       Event::step_end, Event::evaluated, Event::run_end},
      run);

  const auto lines = read_metrics(run_);
  EXPECT_EQ(lines.damage, "");
  std::vector<std::string> events;
  for (const auto& line : lines.newest) events.push_back(line.event);
  EXPECT_THAT(events, ElementsAre("run_begin", "epoch_begin", "step_end", "evaluated", "run_end"))
      << "step_begin and gradients_ready are not logged";
  const auto& begin = *lines.first;
  EXPECT_EQ(begin.steps, 40);
  EXPECT_EQ(begin.parameters, 1000);
  EXPECT_EQ(begin.trainable_parameters, 10);
  EXPECT_EQ(metrics_to_json(*begin.declared), metrics_to_json(run.declared));
  const auto& step = lines.newest[2];
  EXPECT_EQ(step.step, 1);
  EXPECT_EQ(step.seconds, 12.25);
  EXPECT_GT(step.unix_seconds, 1.7e9);
  EXPECT_EQ(step.loss, 0.1 + 0.2);
  EXPECT_EQ(step.learning_rate, 1e-4);
  EXPECT_EQ(step.grad_norm, 3);
  EXPECT_EQ(step.tokens, 512);
  EXPECT_EQ(step.tokens_per_second, 1e6);
  EXPECT_EQ(step.scalars, run.scalars);
  EXPECT_EQ(step.skipped_steps, 2);
  EXPECT_EQ(step.samples_without_target, 3);
  EXPECT_FALSE(step.evaluation);
  EXPECT_EQ(lines.newest[3].evaluation, run.metrics);
  EXPECT_EQ(lines.newest[4].stop_reason, run.stop_reason);
  // Every line written again is the same line.
  std::string again;
  for (const auto& line : lines.newest) again += line.text();
  EXPECT_EQ(again, text_of("run/metrics.jsonl"));
}

TEST_F(RunDirectory, NumbersThatAreNotFiniteAreNullAndReadAsNaN) {
  auto run = begun();
  run.loss = std::nan("");
  run.grad_norm = inf;
  run.tokens_per_second = inf;
  run.seconds = -inf;
  run.scalars = {{"kl", -inf}, {"reward", 1}};
  run.metrics = {{"f1", std::nan("")}, {"loss", inf}, {"perplexity", 3.5}};
  log({Event::run_begin, Event::step_end, Event::evaluated}, run);
  for (const auto& line : lines_of(text_of("run/metrics.jsonl")))
    EXPECT_TRUE(json::accept(line)) << "strict JSON: " << line;
  const auto step = json::parse(lines_of(text_of("run/metrics.jsonl"))[1]);
  EXPECT_TRUE(step["loss"].is_null() && step["grad_norm"].is_null() &&
              step["scalars"]["kl"].is_null());

  const auto lines = read_metrics(run_);
  EXPECT_EQ(lines.damage, "");
  EXPECT_TRUE(std::isnan(lines.newest[1].loss.value()));
  EXPECT_TRUE(std::isnan(lines.newest[2].evaluation->at("loss")));
  const auto p = read_progress(run_);
  EXPECT_EQ(p.problem, "");
  EXPECT_EQ(p.step, 1);
  EXPECT_EQ(p.seconds, 0);
  EXPECT_TRUE(std::isnan(p.loss.value())) << "known not to be finite";
  EXPECT_FALSE(p.tokens_per_second);
  EXPECT_EQ(p.scalars, (std::map<std::string, double>{{"reward", 1}}));
  EXPECT_EQ(p.evaluation, (std::map<std::string, double>{{"perplexity", 3.5}}));
  EXPECT_THAT(p.not_finite, ElementsAre("f1", "loss"));
}

TEST_F(RunDirectory, ALogOfAnEarlierAttuneIsVersionOneAndANewerOneIsRefused) {
  auto run = begun();
  log({Event::run_begin}, run);
  const auto first = json::parse(text_of("run/metrics.jsonl"));
  EXPECT_EQ(first["format"], "attune-metrics");
  EXPECT_EQ(first["version"], 1);

  write("run/metrics.jsonl", begin_line + step_line(3));
  EXPECT_EQ(read_progress(run_).steps, 40);
  check_can_go_on(run_);

  write("run/metrics.jsonl",
        R"({"event":"run_begin","version":2,"step":0,"steps":{"of":"another kind"}})"
        "\n" +
            step_line(3));
  const auto newer = AllOf(HasSubstr("metrics.jsonl: has version 2 of attune-metrics"),
                           HasSubstr("this Attune reads up to version 1"));
  EXPECT_THAT(read_progress(run_).problem, newer);
  EXPECT_EQ(read_progress(run_).step, 0) << "what another version means is not guessed";
  EXPECT_THAT(error_of([&] { check_can_go_on(run_); }), newer);
  const auto before = text_of("run/metrics.jsonl");
  EXPECT_THAT(error_of([&] { MetricsLog(run_, 0); }), newer);
  EXPECT_EQ(text_of("run/metrics.jsonl"), before) << "and nothing of it is lost";

  write("run/metrics.jsonl", begin_line + step_line(3) +
                                 R"({"event":"run_begin","version":3,"step":3})"
                                 "\n");
  EXPECT_THAT(read_progress(run_).problem, HasSubstr("has version 3")) << "resumed by a newer one";
}

TEST_F(RunDirectory, ALastLineThatIsCutOffIsPassedOver) {
  const auto whole = begin_line + step_line(1) + step_line(2);
  const auto last = step_line(3);
  for (std::size_t bytes = 0; bytes < last.size() - 1; ++bytes) {
    write("run/metrics.jsonl", whole + last.substr(0, bytes));
    const auto p = read_progress(run_);
    ASSERT_EQ(p.step, 2) << bytes;
    ASSERT_EQ(p.problem, "") << bytes;
  }
  write("run/metrics.jsonl", whole + last.substr(0, last.size() - 1));
  EXPECT_EQ(read_progress(run_).step, 3) << "it is whole but for its line feed";
}

TEST_F(RunDirectory, DamageIsToldAndNeverReadAsAStep) {
  const std::string zeros(300, '\0');
  const std::vector<std::string> damages{
      "garbage\n",
      "{\"event\":\"step_end\",\"st\n",
      "[1, 2]\n",
      "3\n",
      "{}\n",
      "null\n",
      zeros + "\n",
      "\xff\xfe{}\n",
      "{\"event\":\"step_end\",\"loss\":1.0}\n",                    // no step
      "{\"event\":\"step_end\",\"step\":\"many\",\"loss\":1.0}\n",  // values of other types
      "{\"event\":\"step_end\",\"step\":null}\n",
      "{\"event\":\"step_end\",\"step\":-4}\n",
      "{\"event\":\"step_end\",\"step\":7.5}\n",
      "{\"event\":\"step_end\",\"step\":1e300}\n",
      "{\"event\":\"step_end\",\"step\":18446744073709551615}\n",
      "{\"event\":\"step_end\",\"step\":7,\"loss\":\"low\"}\n",
      "{\"event\":\"step_end\",\"step\":7,\"loss\":NaN}\n",
      "{\"event\":\"step_end\",\"step\":7,\"loss\":1e999}\n",
      "{\"event\":\"step_end\",\"step\":7,\"scalars\":[1]}\n",
      "{\"event\":\"evaluated\",\"step\":7,\"evaluation\":{\"loss\":{}}}\n",
      "{\"event\":\"evaluated\",\"step\":7,\"evaluation\":3}\n",
      "{\"event\":7,\"step\":7}\n",
      "{\"event\":\"run_begin\",\"version\":\"x\",\"step\":7}\n",
      "{\"event\":\"run_begin\",\"format\":\"attune-record\",\"step\":7}\n"};
  for (const auto& damage : damages) {
    const auto before = begin_line + step_line(1);
    write("run/metrics.jsonl", before + damage + step_line(2));
    const auto p = read_progress(run_);
    EXPECT_EQ(p.step, 2) << damage;
    EXPECT_EQ(p.loss, 2.0) << damage;
    EXPECT_EQ(p.steps, 40) << damage;
    EXPECT_EQ(p.problem, fmt::format("metrics.jsonl is damaged at byte {} (1 line is left out)",
                                     before.size()))
        << damage;
    write("run/metrics.jsonl", begin_line + damage);
    EXPECT_EQ(read_progress(run_).step, 0);
    EXPECT_THAT(read_progress(run_).problem, HasSubstr("metrics.jsonl is damaged")) << damage;
    write("run/metrics.jsonl", damage + step_line(2));
    EXPECT_EQ(read_progress(run_).step, 2) << damage;
    EXPECT_EQ(read_progress(run_).problem,
              "metrics.jsonl is damaged at byte 0 (1 line is left out)")
        << damage;
  }
  write("run/metrics.jsonl", begin_line + step_line(1) + zeros);
  EXPECT_EQ(read_progress(run_).step, 1);
  EXPECT_THAT(read_progress(run_).problem, HasSubstr("damaged"))
      << "a crash of the machine left zero bytes, and nobody goes on";
}

TEST_F(RunDirectory, TheNewestStepIsFoundBehindMuchDamage) {
  write("run/metrics.jsonl",
        begin_line + step_line(5) + std::string(200'000, '\0') + "\n" + std::string(100'000, 'x'));
  const auto p = read_progress(run_);
  EXPECT_EQ(p.step, 5);
  EXPECT_EQ(p.steps, 40);
  EXPECT_THAT(p.problem, HasSubstr("metrics.jsonl is damaged at byte"));
}

TEST_F(RunDirectory, ALongLogIsReadAtItsEndsAndItsDamagedBeginningIsTold) {
  std::string steps;
  for (int step = 1; steps.size() < 300'000; ++step) steps += step_line(step);
  const auto last = std::count(steps.begin(), steps.end(), '\n');
  write("run/metrics.jsonl", begin_line + steps);
  EXPECT_EQ(read_progress(run_).steps, 40);
  EXPECT_EQ(read_progress(run_).step, last);
  EXPECT_EQ(read_progress(run_).problem, "");
  EXPECT_EQ(read_progress(run_).seconds_per_step, 1.0);
  write("run/metrics.jsonl", std::string(100, '\0') + "\n" + steps);
  EXPECT_EQ(read_progress(run_).step, last);
  EXPECT_EQ(read_progress(run_).problem, "metrics.jsonl is damaged at byte 0 (1 line is left out)");
}

TEST_F(RunDirectory, LinesOfUnknownEventsAndKeysAreNoDamage) {
  write("run/metrics.jsonl", std::string(begin_line) +
                                 R"({"event":"rotated","step":6,"by":["a",1]})"
                                 "\n\n" +
                                 R"({ "event": "step_end", "step": 7, "loss": 1, "new": {} })"
                                 "\r\n");
  const auto p = read_progress(run_);
  EXPECT_EQ(p.problem, "");
  EXPECT_EQ(p.step, 7);
  EXPECT_EQ(p.loss, 1.0);
}

TEST_F(RunDirectory, TheWholeLogIsSearchedForAnEvaluation) {
  const std::string evaluated =
      R"({"event":"evaluated","step":1,"evaluation":{"loss":null,"f1":0.5}})"
      "\n";
  std::string log = begin_line + evaluated +
                    R"({"event":"evaluated","step":2,"evaluation":"?"})"
                    "\n";
  while (log.size() < 200'000) log += step_line(3);
  write("run/metrics.jsonl", log);
  EXPECT_FALSE(read_progress(run_).evaluated_step);
  const auto p = read_whole_progress(run_);
  EXPECT_EQ(p.evaluated_step, 1);
  EXPECT_THAT(p.not_finite, ElementsAre("loss"));
  EXPECT_EQ(p.evaluation.at("f1"), 0.5);
  EXPECT_THAT(p.problem, HasSubstr("metrics.jsonl is damaged at byte ")) << "the one after it";
}

TEST_F(RunDirectory, AResumedRunTakesBackWhatIsDoneAgain) {
  auto run = begun();
  std::uint64_t keep = 0;
  {
    MetricsLog log(run_, 0);
    log.write(Event::run_begin, run);
    run.step = 1;
    log.write(Event::step_end, run);
    keep = log.bytes();
    run.step = 2;
    log.write(Event::step_end, run);
  }
  EXPECT_EQ(keep, text_of("run/metrics.jsonl").rfind("{\"event\":\"step_end\",\"step\":2"));
  run.step = 1;
  log({Event::run_begin, Event::step_end}, run, keep);
  std::vector<std::int64_t> steps;
  for (const auto& line : read_metrics(run_).newest) steps.push_back(line.step);
  EXPECT_THAT(steps, ElementsAre(0, 1, 1, 2));
}

TEST_F(RunDirectory, WhatACrashLeftAtTheEndDoesNotSpoilTheLinesThatFollow) {
  for (const auto& torn :
       {std::string("{\"event\":\"step_e"), std::string(5000, '\0'), std::string(3 << 20, '\0')}) {
    write("run/metrics.jsonl", begin_line + step_line(1) + torn);
    auto run = begun();
    run.step = 1;
    log({Event::run_begin, Event::step_end}, run, std::numeric_limits<std::uint64_t>::max());
    EXPECT_EQ(read_progress(run_).step, 2);
    EXPECT_EQ(read_progress(run_).problem, "");
  }
  auto whole = step_line(1);
  whole.pop_back();
  write("run/metrics.jsonl", begin_line + whole);
  auto run = begun();
  log({Event::run_begin}, run, 1 << 20);
  EXPECT_EQ(read_metrics(run_).newest.size(), 3) << "a whole line without a line feed is kept";
}

TEST_F(RunDirectory, AMetricThatIsNoNumberIsNotTheOneOfBefore) {
  write("run/metrics.jsonl",
        "{\"event\":\"evaluated\",\"step\":0,\"seconds\":1.0,\"evaluation\":{\"loss\":1.5,\"f1\":0."
        "5}}\n"
        "{\"event\":\"evaluated\",\"step\":9,\"seconds\":7.0,\"evaluation\":{\"loss\":null,\"f1\":"
        "0.25}}\n"
        "{\"event\":\"step_end\",\"step\":10,\"seconds\":8.0,\"loss\":null,\"tokens_per_second\":"
        "20.0}\n");
  const auto p = read_progress(folder_ / "run");
  EXPECT_EQ(p.evaluation, (std::map<std::string, double>{{"f1", 0.25}}));
  EXPECT_EQ(p.step, 10) << "the log is read to its end";
}

// ---- not_finite.jsonl

TEST_F(RunDirectory, StepsThatAreNotFiniteAreNotedAndReadBack) {
  EXPECT_EQ(newest_not_finite(run_).step, 0);
  note_not_finite(run_, {4, "the loss is nan", "train", {7, 9}});
  write("run/not_finite.jsonl", text_of("run/not_finite.jsonl") + "{\"step\":5,\"wh");
  EXPECT_EQ(newest_not_finite(run_).step, 4);
  note_not_finite(run_, {6, "the gradient norm is inf", "train", {1}});
  EXPECT_EQ(
      text_of("run/not_finite.jsonl"),
      "{\"step\":4,\"what\":\"the loss is nan\",\"split\":\"train\",\"samples\":[7,9]}\n"
      "{\"step\":6,\"what\":\"the gradient norm is inf\",\"split\":\"train\",\"samples\":[1]}\n");
  EXPECT_EQ(newest_not_finite(run_).step, 6);
  EXPECT_TRUE(read_progress(run_).diverged);
  write("run/not_finite.jsonl", "{\"step\":\"?\"}\n{\"step\":6}\n");
  EXPECT_EQ(newest_not_finite(run_).damage,
            "not_finite.jsonl is damaged at byte 0 (1 line is left out)");
}

// ---- record.json

RecordFacts facts() {
  RecordFacts facts;
  facts.name = "glossary";
  facts.attune_version = "0.1.0";
  facts.command_line = {"run.toml", "seed=3"};
  facts.base_model_path = "models/tiny";
  facts.base_model_sha256 = "abc";
  facts.data_path = "data/a.h5";
  facts.data_sha256 = {{"train", "t"}, {"validation", "v"}};
  facts.plugins = {{"lora 1.0.0", "/lib/lora.so", "p"}};
  facts.versions = {{"libtorch", "2.9"}};
  facts.placement = {RankPlace{"n1", "0-3", 4, std::nullopt, ""}.text(),
                     RankPlace{"n2", "4", 1, "0,1", "cuda:0 NVIDIA H200"}.text()};
  facts.slurm_job = "12_3";
  facts.slurm_variables = {{"SLURM_RESTART_COUNT", "1"}};
  facts.run_file = "name = \"glossary\"\n";
  return facts;
}

TEST_F(RunDirectory, ARecordIsReadBackAndHandsOnItsHistory) {
  auto text = with_event(record_text(facts(), ""), "started", 0);
  write_record(run_, text);
  text = with_event(record_text(facts(), earlier_record(run_)), "resumed", 0);
  text = with_event(text, "finished", 40, "pruned at step 40");
  write_record(run_, text);
  const auto record = read_record(run_).value();
  ASSERT_EQ(record.history.size(), 3);
  EXPECT_EQ(record.history[0].what, "started");
  EXPECT_EQ(record.history[2].note, "pruned at step 40");
  EXPECT_EQ(record.run_file, facts().run_file);
  EXPECT_EQ(record.slurm_job, "12_3");
  EXPECT_TRUE(is_finished(run_));

  const auto whole = json::parse(text);
  EXPECT_EQ(whole["format"], "attune-record");
  EXPECT_EQ(whole["version"], 1);
  EXPECT_EQ(whole["ranks"], 2);
  EXPECT_EQ(whole["hosts"], json({"n1", "n2"}));
  EXPECT_EQ(whole["placement"][1]["gpus"], "0,1");
  EXPECT_FALSE(whole["placement"][0].contains("gpus"));
  EXPECT_EQ(whole["history"][2]["step"], 40);
  EXPECT_EQ(whole["history"][2]["job"], "12_3");

  const auto inputs = read_recorded_inputs(record_file(run_));
  EXPECT_EQ(inputs.run_file, facts().run_file);
  EXPECT_EQ(inputs.base_model_sha256, "abc");
  EXPECT_EQ(inputs.data_sha256.at("validation"), "v");
}

TEST_F(RunDirectory, ARecordThatCannotBeReadIsNeverReplacedSilently) {
  EXPECT_EQ(earlier_record(run_), "");
  EXPECT_FALSE(is_finished(run_));
  for (const char* damaged : {"", "{\"history\": [", "[]", "null"}) {
    write("run/record.json", damaged);
    EXPECT_THAT(
        error_of([&] { earlier_record(run_); }),
        AllOf(HasSubstr("run/record.json is damaged"), HasSubstr("remove it to continue without")))
        << damaged;
    EXPECT_THAT(error_of([&] { check_can_go_on(run_); }), HasSubstr("record.json is damaged"))
        << damaged;
    EXPECT_THAT(error_of([&] { is_finished(run_); }),
                AllOf(HasSubstr("run: the state of this run is unknown"),
                      HasSubstr("record.json is damaged")));
    EXPECT_THAT(read_progress(run_).problem, HasSubstr("record.json is damaged")) << damaged;
  }
  write("run/record.json", R"({"history": "long"})");
  EXPECT_THAT(read_progress(run_).problem, HasSubstr("record.json is damaged"));
  write("run/record.json", R"({"format": "attune-record", "version": 7, "history": 0})");
  const auto newer = HasSubstr(
      "record.json: has version 7 of attune-record, but this Attune reads up to version 1");
  EXPECT_THAT(error_of([&] { earlier_record(run_); }), newer);
  EXPECT_THAT(error_of([&] { read_recorded_inputs(record_file(run_)); }), newer);
  EXPECT_THAT(read_progress(run_).problem, newer);
  write("run/record.json", R"({"format": "safetensors"})");
  EXPECT_THAT(error_of([&] { earlier_record(run_); }),
              HasSubstr("has the format \"safetensors\", but attune-record is needed"));
  EXPECT_THAT(error_of([&] { read_recorded_inputs(record_file(run_)); }),
              HasSubstr("is not a run record"));
  write("run/record.json",
        R"({"history": [{"what": "started"}, {"what": "finished"}], "more": 1})");
  EXPECT_TRUE(is_finished(run_)) << "the first records had no format";
}

// ---- evaluation.json

TEST_F(RunDirectory, AnEvaluationIsReadBack) {
  const Evaluation found{"test",
                         3,
                         {{"loss", 2.0}, {"f1", 0.25}},
                         {{"loss", std::nan("")}, {"f1", inf}},
                         begun().declared};
  write_evaluation(run_, found);
  const auto whole = json::parse(text_of("run/evaluation.json"));
  EXPECT_EQ(whole["format"], "attune-evaluation");
  EXPECT_EQ(whole["version"], 1);
  EXPECT_TRUE(whole["tuned"]["loss"].is_null() && whole["tuned"]["f1"].is_null())
      << "strict JSON has neither NaN nor infinity";
  const auto read = read_evaluation(run_);
  EXPECT_EQ(read.split, "test");
  EXPECT_EQ(read.samples, 3);
  EXPECT_EQ(read.base, found.base);
  EXPECT_TRUE(std::isnan(read.tuned.at("loss")));
  EXPECT_EQ(metrics_to_json(read.declared), metrics_to_json(found.declared));

  write("run/evaluation.json",
        R"({"split": "validation", "samples": 5, "base": {"loss": 1}, "tuned": {"loss": null}})");
  EXPECT_EQ(read_evaluation(run_).base.at("loss"), 1.0) << "an earlier Attune's";
  write("run/evaluation.json",
        R"({"split": "validation", "samples": 5, "base": {"loss": "1"}, "tuned": {}})");
  EXPECT_THAT(error_of([&] { read_evaluation(run_); }),
              HasSubstr("run/evaluation.json is damaged"));
  write("run/evaluation.json", R"({"version": 2})");
  EXPECT_THAT(error_of([&] { read_evaluation(run_); }),
              HasSubstr("has version 2 of attune-evaluation"));
}

// ---- Jobs

TEST_F(RunDirectory, JobsAreNotedAndDamagedLinesAreTold) {
  EXPECT_TRUE(submitted_jobs(run_).empty());
  note_submitted(run_, "12");
  note_submitted(run_, "13_4");
  EXPECT_THAT(submitted_jobs(run_), ElementsAre("12", "13_4"));
  write("run/jobs", text_of("run/jobs") + std::string(8, '\0') + "\n14\n-5\n6_7_8\n");
  EXPECT_THAT(read_progress(run_).jobs, ElementsAre("12", "13_4", "14"));
  EXPECT_EQ(read_progress(run_).problem, "jobs is damaged (3 lines are not a job id)");
  EXPECT_THAT(error_of([&] { submitted_jobs(run_); }),
              AllOf(HasSubstr("run: jobs is damaged"), HasSubstr("run/jobs")));
  EXPECT_THAT(error_of([&] { note_submitted(folder_ / "none", "15"); }),
              HasSubstr("cannot be written, but job 15 is queued"));
}

TEST_F(RunDirectory, WhatWasCountedOfEarlierJobsGoesWithTheNextSubmission) {
  for (const char* counted : {"attempts", "failures"}) write(std::string("run/") + counted, "2\n");
  write("run/launches",
        "2026-11-28T10:00:00 job=1 restart=0 n2\n2026-11-28T10:01:00 job=1 restart=1 n2\n");
  EXPECT_EQ(failed_launches(run_), "the launch failed 2 times in a row on n2");
  prepare_directory(run_, "seed = 1\n");
  EXPECT_EQ(failed_launches(run_), "");
  EXPECT_EQ(text_of("run/run.toml"), "seed = 1\n");
  for (const char* counted : {"attempts", "failures", "launches"})
    EXPECT_FALSE(fs::exists(run_ / counted)) << counted;
}

// ---- Foreign files

TEST_F(RunDirectory, FoldersInThePlaceOfFilesAreToldAndNotReadInto) {
  for (const char* name : {"metrics.jsonl", "record.json", "not_finite.jsonl", "jobs"})
    fs::create_directories(run_ / name);
  const auto p = read_progress(run_);
  for (const char* name : {"metrics.jsonl", "record.json", "not_finite.jsonl", "jobs"})
    EXPECT_THAT(p.problem, HasSubstr(name));
  EXPECT_EQ(p.step, 0);
}

TEST_F(RunDirectory, AnEmptyOrMissingDirectoryHasNoProblem) {
  EXPECT_EQ(read_progress(run_).problem, "");
  EXPECT_EQ(read_progress(folder_ / "none").problem, "");
  write("run/metrics.jsonl", "");
  EXPECT_EQ(read_progress(run_).problem, "");
}

// ---- The end of a file

TEST_F(RunDirectory, TheEndOfAFileIsRead) {
  const auto file = write("log", "one\n\ntwo\nthree\n");
  EXPECT_EQ(read_tail(file, 7).text, "\nthree\n");
  EXPECT_EQ(read_tail(file, 7).begin, 8);
  EXPECT_TRUE(read_tail(file, 100).is_whole_file());
  EXPECT_EQ(read_tail(folder_ / "none", 5).text, "");
  EXPECT_THAT(last_lines(file, 2), ElementsAre("two", "three"));
  EXPECT_TRUE(last_lines(folder_, 2).empty());
}

}  // namespace
}  // namespace attune::run_directory
