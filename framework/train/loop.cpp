#include "train/loop.hpp"

#include <attune/error.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/stopwatch.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "train/interruption.hpp"
#include "train/memory.hpp"
#include "train/optimizer.hpp"
#include "train/prefix.hpp"
#include "train/saving.hpp"
#include "train/schedule.hpp"
#include "train/state.hpp"
#include "train/step.hpp"
#include "train/surroundings.hpp"

namespace attune::train {
namespace {

/// So many steps in a row without a finite loss and gradient, and the run is no longer worth its time.
constexpr std::int64_t most_skipped_in_a_row = 10;

constexpr const char* why_without_target = "dataset.max_length has cut its answer away, or its loss_mask is empty";

class Loop {
 public:
  explicit Loop(Session& session)
      : s_(session), options_(session.config.train), validation_(session.data->split("validation")),
        sampler_(session.data->split("train").size(), options_.global_batch, session.config.run.seed, session.comm.size(), session.config.dataset.shuffle_block),
        optimizer_(session.strategies->groups(*session.model), options_), interruption_(options_, state_bytes(), session.comm),
        watchdog_(session.comm, session.config.parallel.watchdog), run_(describe_run()),
        saving_(checkpoint_folder(session.config), run_, interruption_, [this] { fire(Event::checkpoint_saved); }) {}

  // Events are in capitals; every rank fires them in this order.
  //
  //   RUN_BEGIN
  //   for every epoch:  EPOCH_BEGIN
  //     for every step:  STEP_BEGIN
  //       forward and backward of every micro-batch, all-reduce
  //       GRADIENTS_READY      scaled and clipped
  //       optimizer step
  //       STEP_END
  //       EVALUATED            every so many steps
  //       EPOCH_END            after the epoch's last step
  //       CHECKPOINT_SAVED     when one that a callback asked for is whole on the disk, which may be some steps later
  //   INTERRUPTED              after a signal, or in time before the time limit: the state is saved, the run ends here
  //   RUN_END
  Outcome run(const Resume& resume) {
    s_.strategies->begin(*s_.model, surroundings_);
    begin(resume);
    if (interruption_.happened()) return nothing_done_yet();
    const auto hidden = keep_prefix(s_, optimizer_.parameters(), interruption_);
    if (interruption_.happened()) return nothing_done_yet();
    Step step(s_, optimizer_.parameters(), micro_batch_, hidden, interruption_);
    fire(Event::run_begin);
    if (step_is_open_) follow_up();
    while (run_.step < run_.steps && run_.stop_reason.empty() && !interruption_.happened()) {
      begin_epoch_if_due();
      s_.strategies->on_step(*s_.model, run_.step);
      fire(Event::step_begin);
      const Stopwatch watch;
      const auto sums = step.forward_backward(run_.step, saving_.is_writing());
      if (!sums) break;  // interrupted: the step will be done again
      count_without_target(*sums);
      if (normalise(*sums)) {
        fire(Event::gradients_ready);
        optimizer_.step(run_.learning_rate);
      }
      drop_gradients(optimizer_.parameters());
      end_step(watch.seconds());
      fire(Event::step_end);
      if (sums->all_written) saving_.finish();
      if (sums->interruption_wanted) interruption_.agree();
      follow_up();
    }
    if (interruption_.happened() || (evaluated_step_ != run_.step && !evaluate_now())) return interrupt();
    save_last();
    fire(Event::run_end);
    tell_without_target();
    return outcome();
  }

 private:
  // ---- Before the first step

  Run describe_run() {
    Run run;
    run.comm = s_.comm;
    run.name = s_.config.run.name;
    run.directory = s_.config.directory();
    run.steps = steps_of(options_, s_.data->split("train").size());
    for (const auto& parameter : s_.model->module().parameters()) run.parameters += parameter.numel();
    for (const auto& [name, parameter] : optimizer_.parameters()) run.trainable_parameters += parameter.numel();
    return run;
  }

  std::size_t state_bytes() const {
    std::size_t bytes = 0;
    for (const auto& [name, tensor] : s_.strategies->state(*s_.model)) bytes += tensor.nbytes();
    for (const auto& [name, tensor] : optimizer_.state()) bytes += tensor.nbytes();
    return bytes;
  }

  void fire(Event event) {
    for (const auto& callback : s_.callbacks) callback->on(event, run_);
  }

  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    if (s_.comm.root()) fmt::print(stderr, "{}\n", fmt::format(text, std::forward<Args>(args)...));
  }

  void announce() {
    on_root(s_.comm, [&] {
      if (s_.begins) s_.begins();
    });
  }

  void begin(const Resume& resume) {
    std::optional<std::filesystem::path> newest;
    if (resume.wanted) newest = newest_checkpoint(checkpoint_folder(s_.config), s_.comm);
    if (newest) return go_on_from(*newest, resume.anyway);
    if (resume.wanted) say("no checkpoint in {}: starting from the beginning", checkpoint_folder(s_.config).string());
    announce();
    micro_batch_ = options_.micro_batch;
    if (micro_batch_ == 0) {
      micro_batch_ = find_micro_batch(s_);
      say("train.micro_batch: {} samples fit", micro_batch_);
    }
    say("evaluating the base on {} samples", validation_samples());
    const BaseAlone base(*s_.model);
    if (const auto metrics = evaluate_validation()) base_ = run_.metrics = *metrics;
    if (without_target_ > 0) say("warning: {} of the {} validation samples have no target, and are left out: {}", without_target_, validation_samples(), why_without_target);
  }

  void go_on_from(const std::filesystem::path& checkpoint, bool anyway) {
    const auto loaded = load_checkpoint(checkpoint, s_.comm);
    s_.comm.agree([&] {
      const auto state = restore(s_, optimizer_, loaded, anyway);
      run_.step = run_.saved_step = state.step;
      run_.seconds = seconds_before_ = state.seconds;
      run_.skipped_steps = state.skipped_steps;
      run_.samples_without_target = state.samples_without_target;
      base_ = state.base;
      run_.metrics = state.newest;
      micro_batch_ = options_.micro_batch > 0 ? options_.micro_batch : state.micro_batch;
      step_is_open_ = state.step_is_open;
    });
    announce();
    if (!step_is_open_ && evaluation_due()) evaluated_step_ = run_.step;
    say("resumed from {} at step {}", checkpoint.string(), run_.step);
  }

  /// After an interruption in the evaluation of the base.
  Outcome nothing_done_yet() {
    say("{}: interrupted by {} before the first step; there is nothing to save yet", run_.name, interruption_.reason());
    return outcome();
  }

  // ---- Steps

  void begin_epoch_if_due() {
    const auto epoch = sampler_.epoch_of(run_.step);
    if (epoch == epoch_) return;
    epoch_ = run_.epoch = epoch;
    s_.strategies->on_epoch(*s_.model, epoch);
    fire(Event::epoch_begin);
  }

  /// From the sum over targets to their mean, then clipped; false when the step is to be left out. What is wrong is wrong on every rank:
  /// the sums are the same everywhere.
  bool normalise(const StepSums& sums) {
    if (sums.targets == 0)
      s_.comm.agree([&] {
        fail("step {}: no target in {} samples is trained on: check the data's loss_mask and the dataset's options, such as dataset.max_length, which may cut answers away", run_.step + 1,
             options_.global_batch);
      });
    const auto targets = static_cast<double>(sums.targets);
    run_.loss = sums.loss / targets;
    run_.learning_rate = learning_rate_at(run_.step, run_.steps, options_);
    run_.grad_norm = optimizer_.scale_and_clip(1.0 / targets, options_.clip);
    run_.step_tokens = sums.tokens;
    const bool is_finite = std::isfinite(run_.loss) && std::isfinite(run_.grad_norm);
    skipped_in_a_row_ = is_finite ? 0 : skipped_in_a_row_ + 1;
    if (!is_finite) not_finite(sums.bad_rows);
    return is_finite;
  }

  /// The first one is told of at once.
  void count_without_target(const StepSums& sums) {
    if (sums.samples_without_target == 0) return;
    const auto row = s_.comm.max(sums.row_without_target);
    if (run_.samples_without_target == 0)
      say("warning: sample {} of 'train' has no target, and teaches nothing: {}; such samples are counted", row, why_without_target);
    run_.samples_without_target += sums.samples_without_target;
  }

  void tell_without_target() const {
    if (run_.samples_without_target == 0) return;
    say("warning: {} of the {} samples that the steps took had no target, and taught nothing: {}", run_.samples_without_target, run_.steps * options_.global_batch, why_without_target);
  }

  /// Notes the samples, so that the step can be computed again by itself; ends the run unless it is to go on.
  void not_finite(const std::vector<std::int64_t>& bad_rows) {
    const bool loss_is = std::isfinite(run_.loss);
    const auto what = fmt::format("the {} is {}", loss_is ? "gradient norm" : "loss", loss_is ? run_.grad_norm : run_.loss);
    std::vector<std::int64_t> rows;
    for (const auto& text : s_.comm.gather(nlohmann::json(bad_rows).dump()))
      for (const auto row : nlohmann::json::parse(text).get<std::vector<std::int64_t>>()) rows.push_back(row);
    if (rows.empty()) rows = sampler_.step_rows(run_.step);  // every loss was finite: any of them may have made the gradient so
    ++run_.skipped_steps;
    const auto file = run_.directory / "not_finite.jsonl";
    on_root(s_.comm, [&] {
      const nlohmann::ordered_json line{{"step", run_.step + 1}, {"what", what}, {"split", "train"}, {"samples", rows}};
      std::ofstream(file, std::ios::app) << line.dump() << "\n";
      if (options_.on_not_finite == "stop" || skipped_in_a_row_ == most_skipped_in_a_row)
        fail("step {}: {}{}: lower train.learning_rate, set train.clip, or look at samples {} of 'train' (noted in {})", run_.step + 1, what,
             skipped_in_a_row_ > 1 ? fmt::format(", as in {} steps in a row", skipped_in_a_row_) : "", fmt::join(rows, ", "), file.string());
    });
    say("warning: step {} is left out: {}; its samples are noted in {}", run_.step + 1, what, file.string());
  }

  void end_step(double seconds) {
    ++run_.step;
    run_.tokens_per_second = static_cast<double>(run_.step_tokens) / seconds;
    run_.seconds = seconds_before_ + watch_.seconds();
  }

  /// What belongs to a step that has been taken. When it is interrupted, a resumed run does it first.
  void follow_up() {
    step_is_open_ = true;
    if (interruption_.happened() || (evaluation_due() && !evaluate_now())) return;
    if (run_.step == run_.steps || sampler_.epoch_of(run_.step) != sampler_.epoch_of(run_.step - 1)) fire(Event::epoch_end);
    step_is_open_ = false;
    if (run_.checkpoint_wanted) save();
  }

  // ---- Evaluation

  bool evaluation_due() const {
    if (evaluated_step_ == run_.step) return false;
    const auto& [every, also_at] = std::tie(s_.config.evaluate.every, s_.config.evaluate.also_at);
    return run_.step == run_.steps || (every > 0 && run_.step % every == 0) || std::ranges::count(also_at, run_.step) > 0;
  }

  std::int64_t validation_samples() const { return samples_to_evaluate(validation_, s_.config.evaluate.samples); }

  std::optional<Metrics> evaluate_validation() {
    parallel::report_phase("evaluation", run_.step);
    auto metrics = evaluate(*s_.model, *s_.strategies, *s_.dataset,
                            {validation_, validation_samples(), s_.config.evaluate.micro_batch, [this] { return interruption_.wanted(); }, &without_target_}, s_.comm, s_.device);
    if (!metrics) interruption_.agree();
    return metrics;
  }

  /// False when it was interrupted.
  bool evaluate_now() {
    const auto metrics = evaluate_validation();
    if (!metrics) return false;
    run_.metrics = *metrics;
    evaluated_step_ = run_.step;
    run_.seconds = seconds_before_ + watch_.seconds();
    fire(Event::evaluated);
    return true;
  }

  // ---- The end, and what is kept of it

  Snapshot snapshot() {
    return take_snapshot(s_, optimizer_, {run_.step, run_.seconds, base_, run_.metrics, micro_batch_, run_.skipped_steps, run_.samples_without_target, step_is_open_});
  }

  bool directory_is_lost() const {
    bool is_lost = false;
    on_root(s_.comm, [&] { is_lost = s_.restore_directory && s_.restore_directory(); });
    return s_.comm.max(is_lost) != 0;
  }

  /// A run that lost its directory saves in the new one and ends: what it had open there is opened again when it is resumed.
  void save() {
    if (directory_is_lost()) interruption_.directory_is_lost();
    else saving_.begin(snapshot());
  }

  void save_last() {
    if (directory_is_lost()) run_.saved_step = -1;
    saving_.save_last([this] { return snapshot(); });
  }

  Outcome interrupt() {
    save_last();
    fire(Event::interrupted);
    return outcome();
  }

  Outcome outcome() const {
    return {base_, run_.metrics, validation_samples(), run_.step, run_.skipped_steps, interruption_.reason(), run_.stop_reason};
  }

  Session& s_;
  const config::TrainOptions& options_;
  const Split& validation_;
  Sampler sampler_;
  RunSurroundings surroundings_{s_};
  Optimizer optimizer_;
  Interruption interruption_;
  parallel::Watchdog watchdog_;
  Run run_;
  Saving saving_;
  Metrics base_;
  Stopwatch watch_;
  double seconds_before_ = 0;  // of the run's earlier parts
  std::int64_t micro_batch_ = 0, epoch_ = -1, evaluated_step_ = -1, skipped_in_a_row_ = 0;
  std::int64_t without_target_ = 0;  // validation samples
  bool step_is_open_ = false;  // taken, and what follows it not yet done
};

}  // namespace

Outcome run_loop(Session& session, const Resume& resume) { return Loop(session).run(resume); }

}  // namespace attune::train
