#include "train/loop.hpp"

#include <attune/error.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <array>
#include <chrono>
#include <cmath>
#include <random>

#include "data/sampler.hpp"
#include "parallel/gradients.hpp"
#include "train/optimizer.hpp"
#include "train/schedule.hpp"
#include "train/signals.hpp"
#include "train/state.hpp"

namespace attune::train {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Sums over the targets of one step; on one rank, then over all.
struct StepSums {
  double loss = 0;
  std::int64_t targets = 0, tokens = 0, interrupted = 0;
};

class Loop {
 public:
  explicit Loop(Session& session)
      : s_(session), options_(session.config.train), train_(session.data->split("train")), validation_(session.data->split("validation")),
        steps_(steps_of(options_, train_.size())), sampler_(train_.size(), options_.global_batch, session.config.run.seed, session.comm.size()),
        optimizer_(session.strategy->groups(*session.model), options_), reducer_(optimizer_.parameters(), session.comm), run_(describe_run()) {}

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
  //       CHECKPOINT_SAVED     when a callback asked for it
  //   INTERRUPTED              after a signal: the state is saved, the run ends here
  //   RUN_END
  Outcome run(bool resume) {
    begin(resume);
    fire(Event::run_begin);
    while (run_.step < steps_ && run_.stop_reason.empty() && !interrupted_) {
      begin_epoch_if_due();
      fire(Event::step_begin);
      const auto started = Clock::now();
      normalise(forward_backward());
      fire(Event::gradients_ready);
      optimizer_.step(run_.learning_rate);
      optimizer_.zero_gradients();
      end_step(seconds_since(started));
      fire(Event::step_end);
      if (evaluation_due()) evaluate_now();
      end_epoch_if_due();
      if (run_.checkpoint_wanted) save();
    }
    if (interrupted_) return interrupt();
    if (saved_step_ != run_.step) save();
    if (evaluated_step_ != run_.step) evaluate_now();
    fire(Event::run_end);
    return outcome();
  }

 private:
  Run describe_run() {
    Run run;
    run.comm = s_.comm;
    run.name = s_.config.run.name;
    run.directory = s_.config.directory();
    run.steps = steps_;
    for (const auto& parameter : s_.model->module().parameters()) run.parameters += parameter.numel();
    for (const auto& [name, parameter] : optimizer_.parameters()) run.trainable_parameters += parameter.numel();
    return run;
  }

  void fire(Event event) {
    for (const auto& callback : s_.callbacks) callback->on(event, run_);
  }

  void begin(bool resume) {
    std::optional<std::filesystem::path> newest;
    if (resume) newest = newest_checkpoint(checkpoint_folder(s_.config), s_.comm);
    if (newest) {
      const auto snapshot = load_checkpoint(*newest, s_.comm);
      s_.comm.agree([&] {
        const auto state = restore(s_, optimizer_, snapshot);
        run_.step = saved_step_ = state.step;
        run_.seconds = seconds_before_ = state.seconds;
        base_ = state.base;
        run_.metrics = state.newest;
      });
      say("resumed from {} at step {}", newest->string(), run_.step);
      return;
    }
    if (resume) say("no checkpoint in {}: starting from the beginning", checkpoint_folder(s_.config).string());
    say("evaluating the base on {} samples", validation_samples());
    base_ = run_.metrics = evaluate_validation();
  }

  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    if (s_.comm.root()) fmt::print(stderr, "{}\n", fmt::format(text, std::forward<Args>(args)...));
  }

  void begin_epoch_if_due() {
    const auto epoch = sampler_.epoch_of(run_.step);
    if (epoch == epoch_) return;
    epoch_ = run_.epoch = epoch;
    s_.strategy->on_epoch(*s_.model, epoch);
    fire(Event::epoch_begin);
  }

  void end_epoch_if_due() {
    if (run_.step == steps_ || sampler_.epoch_of(run_.step) != epoch_) fire(Event::epoch_end);
  }

  StepSums forward_backward() {
    const auto rows = sampler_.step_rows(run_.step);
    const auto mine = Sampler::share(rows, s_.comm.rank(), s_.comm.size());
    s_.model->module().train();
    StepSums sums;
    for (std::size_t from = 0; from < mine.size(); from += micro_batch_) {
      auto batch = load_batch(train_, *s_.dataset, mine.subspan(from, std::min(micro_batch_, mine.size() - from)));
      move_to(batch, s_.device);
      seed_micro_batch(batch.ids.front());
      const auto loss = s_.strategy->loss(*s_.model, batch);
      if (from + micro_batch_ >= mine.size()) reducer_.begin_last_backward();
      loss.sum.backward();
      sums.loss += loss.sum.item<double>();
      sums.targets += loss.count;
      sums.tokens += batch.length();
    }
    reducer_.finish();
    return over_all_ranks(sums);
  }

  /// Dropout depends on seed, step and samples, never on what was computed before or on which rank.
  void seed_micro_batch(std::int64_t first_row) const {
    std::seed_seq mixed{s_.config.run.seed, run_.step, first_row};
    std::array<std::uint32_t, 2> words{};
    mixed.generate(words.begin(), words.end());
    torch::manual_seed((std::uint64_t{words[0]} << 32) | words[1]);
  }

  StepSums over_all_ranks(const StepSums& mine) const {
    const auto& comm = s_.comm;
    return {comm.sum(mine.loss), comm.sum(mine.targets), comm.sum(mine.tokens), comm.max(signal_received())};
  }

  /// From the sum over targets to their mean, then clipped. What is wrong is wrong on every rank: the sums are the same everywhere.
  void normalise(const StepSums& sums) {
    const auto step = run_.step + 1;
    if (sums.targets == 0) s_.comm.agree([&] { fail("step {}: no target in {} samples is trained on: check the data's loss_mask and the dataset's options", step, options_.global_batch); });
    run_.loss = sums.loss / static_cast<double>(sums.targets);
    if (!std::isfinite(run_.loss)) report_not_finite("loss", run_.loss);
    run_.learning_rate = learning_rate_at(run_.step, steps_, options_);
    run_.grad_norm = optimizer_.scale_and_clip(1.0 / static_cast<double>(sums.targets), options_.clip);
    if (!std::isfinite(run_.grad_norm)) report_not_finite("gradient norm", run_.grad_norm);
    run_.step_tokens = sums.tokens;
    interrupted_ = sums.interrupted != 0;
  }

  void report_not_finite(const char* what, double value) {
    const auto rows = sampler_.step_rows(run_.step);
    s_.comm.agree([&] {
      fail("step {}: the {} is {}: lower train.learning_rate, set train.clip, or look at samples {} of 'train'", run_.step + 1, what, value,
           fmt::join(rows, ", "));
    });
  }

  void end_step(double seconds) {
    ++run_.step;
    run_.tokens_per_second = static_cast<double>(run_.step_tokens) / seconds;
    run_.seconds = seconds_before_ + seconds_since(started_);
  }

  bool evaluation_due() const { return s_.config.evaluate.every > 0 && run_.step % s_.config.evaluate.every == 0; }

  std::int64_t validation_samples() const { return samples_to_evaluate(validation_, s_.config.evaluate.samples); }

  Metrics evaluate_validation() {
    return evaluate(*s_.model, *s_.strategy, *s_.dataset, {validation_, validation_samples(), s_.config.evaluate.micro_batch}, s_.comm, s_.device);
  }

  void evaluate_now() {
    run_.metrics = evaluate_validation();
    evaluated_step_ = run_.step;
    run_.seconds = seconds_before_ + seconds_since(started_);
    fire(Event::evaluated);
  }

  void save() {
    run_.checkpoint_wanted = false;
    save_checkpoint(checkpoint_folder(s_.config), run_.step, take_snapshot(s_, optimizer_, {run_.step, run_.seconds, base_, run_.metrics}), s_.comm);
    saved_step_ = run_.step;
    if (run_.checkpoints_kept > 0) prune_checkpoints(checkpoint_folder(s_.config), run_.checkpoints_kept, s_.comm);
    fire(Event::checkpoint_saved);
  }

  Outcome interrupt() {
    if (saved_step_ != run_.step) save();
    fire(Event::interrupted);
    return outcome();
  }

  Outcome outcome() const { return {base_, run_.metrics, validation_samples(), run_.step, interrupted_, run_.stop_reason}; }

  Session& s_;
  const config::TrainOptions& options_;
  const Split& train_;
  const Split& validation_;
  std::int64_t steps_;
  std::size_t micro_batch_ = static_cast<std::size_t>(options_.micro_batch);
  Sampler sampler_;
  Optimizer optimizer_;
  parallel::GradientReducer reducer_;
  Run run_;
  Metrics base_;
  Clock::time_point started_ = Clock::now();
  double seconds_before_ = 0;  // of the run's earlier parts
  std::int64_t epoch_ = -1, saved_step_ = -1, evaluated_step_ = -1;
  bool interrupted_ = false;
};

}  // namespace

Outcome run_loop(Session& session, bool resume) { return Loop(session).run(resume); }

}  // namespace attune::train
