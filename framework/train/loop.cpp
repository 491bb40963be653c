#include "train/loop.hpp"

#include <attune/error.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/plugin_call.hpp"
#include "core/stopwatch.hpp"
#include "device/device.hpp"
#include "parallel/backend.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "run_directory/not_finite.hpp"
#include "run_directory/places.hpp"
#include "strategy/seeding.hpp"
#include "train/base_evaluation.hpp"
#include "train/best.hpp"
#include "train/hidden_cache.hpp"
#include "train/interruption.hpp"
#include "train/memory.hpp"
#include "train/metrics.hpp"
#include "train/replicas.hpp"
#include "train/saving.hpp"
#include "train/schedule.hpp"
#include "train/state.hpp"
#include "train/step.hpp"
#include "train/run_context.hpp"
#include "train/updater.hpp"

namespace attune::train {
namespace {

/// So many steps in a row without a finite loss and gradient, and the run is no longer worth its
/// time.
constexpr std::int64_t most_skipped_in_a_row = 10;

constexpr const char* why_without_target =
    "dataset.max_length cut off its answer, or its loss_mask is empty";

class Loop {
 public:
  explicit Loop(Session& session)
      : s_(session),
        options_(session.config.train),
        validation_(session.data->split("validation")),
        sampler_(session.data->split("train").size(), options_.global_batch,
                 session.config.run.seed, session.mesh.data.size(),
                 session.config.dataset.shuffle_block),
        watchdog_(session.mesh.world, session.config.parallel.watchdog),
        sharing_(connect()),
        updater_(make_updater(session, sharing_.shards)),
        schedule_(session.config.schedule.build<Schedule>()),
        interruption_(options_, state_bytes(), session.mesh.world),
        run_(describe_run()),
        saving_(session.config.checkpoint, checkpoint_folder(session.config), run_, interruption_,
                [this] { fire(Event::checkpoint_saved); }) {}

  // Events are in capitals; every rank fires them in this order.
  //
  //   RUN_BEGIN
  //   for every epoch:  EPOCH_BEGIN
  //     for every step:  STEP_BEGIN
  //       forward and backward of every micro-batch, sums over ranks
  //       strategies that have one: on_gradients
  //       GRADIENTS_READY      scaled and clipped
  //       optimizer step
  //       strategies: after_step
  //       STEP_END
  //       EVALUATED            every so many steps
  //       EPOCH_END            after the epoch's last step
  //       CHECKPOINT_SAVED     when one is whole on the disk, maybe some steps after it was due
  //   INTERRUPTED              after a signal, or in time before the time limit: the state is
  //                            saved, and the run ends here
  //   RUN_END
  Outcome run(const Resume& resume) {
    s_.strategies->begin(*s_.model, context_.run());
    begin(resume);
    if (interruption_.happened()) return nothing_done_yet();
    const auto hidden = keep_hidden_states(s_, updater_.parameters(), interruption_);
    if (interruption_.happened()) return nothing_done_yet();
    Step step(s_, updater_.parameters(), updater_.plan(), sharing_, micro_batch_, hidden,
              interruption_);
    device::release_unused(s_.device);  // that was held until here
    if (!frozen_.empty()) hold_frozen(true);
    fire(Event::run_begin);
    agree_on_requests();
    if (step_is_open_) follow_up();
    while (run_.step < run_.steps && run_.stop_reason.empty() && !interruption_.happened()) {
      begin_epoch_if_due();
      begin_step();
      fire(Event::step_begin);
      const Stopwatch watch;
      device::Readings readings;
      if (!step.forward_backward(run_.step, readings)) break;  // interrupted: it is done again
      auto gradients = step.gradients();
      const auto norm = updater_.start_norm(gradients, readings);
      read(readings);
      const auto sums = step.sums(readings, saving_.is_writing());
      count_without_target(sums);
      run_.scalars = sums.scalars;
      if (const auto gradient_scale =
              normalise(sums, updater_.finish_norm(norm, readings), gradients)) {
        fire(Event::gradients_ready);
        refuse_changes();
        call_plugin({plugin("optimizer", s_.config.optimizer), "update", run_.step},
                    [&] { updater_.step(gradients, run_.learning_rate, *gradient_scale); });
      }
      gradients.clear();
      drop_gradients(updater_.parameters());
      s_.strategies->after_step(*s_.model, run_.step);
      refuse_changes();
      end_step(watch.seconds());
      fire(Event::step_end);
      if (sums.all_written) saving_.finish();
      if (sums.interruption_wanted) interruption_.agree();
      follow_up();
    }
    if (interruption_.happened() || (evaluated_step_ != run_.step && !evaluate_now()))
      return interrupt();
    save_last();
    fire(Event::run_end);
    tell_without_target();
    return outcome();
  }

 private:
  // ---- Before the first step

  /// Before anything fills the device: what sums gradients allocates memory of its own there.
  parallel::Sharing connect() const {
    const auto& parallel = s_.config.parallel;
    auto sharing = parallel::Sharing::make(
        s_.mesh.data, sharded_of(s_.config), static_cast<int>(parallel.replicas),
        parallel.reproducible, s_.device, transport_of(s_.config));
    std::set<parallel::ProcessGroup> connected{nullptr};
    for (const auto* group : {&sharing.data, &sharing.shards, &sharing.copies})
      if (!s_.device.is_cpu() && group->comm.size() > 1 &&
          connected.insert(group->collectives).second)
        parallel::warm_up(*group->collectives, s_.device);
    return sharing;
  }

  Run describe_run() {
    Run run;
    run.comm = s_.mesh.world;
    run.name = s_.config.run.name;
    run.directory = s_.config.directory();
    run.declared = declared_metrics(s_);
    run.steps = steps_of(options_, s_.data->split("train").size());
    for (const auto& parameter : s_.model->module().parameters())
      run.parameters += parameter.numel();
    for (const auto& [name, parameter] : updater_.parameters())
      run.trainable_parameters += parameter.numel();
    return run;
  }

  std::size_t state_bytes() const {
    std::size_t bytes = 0;
    for (const auto& [name, tensor] : s_.strategies->state(*s_.model)) bytes += tensor.nbytes();
    for (const auto& shard : updater_.state()) bytes += shard.tensor.nbytes();
    return bytes;
  }

  static std::string plugin(const char* kind, const config::Chosen& chosen) {
    return fmt::format("{} '{}'", kind, chosen.entry->name);
  }

  /// What a callback draws depends on seed, step and event alone.
  void fire(Event event) {
    for (std::size_t i = 0; i < s_.callbacks.size(); ++i) {
      seed_call(s_.config.run.seed, run_.step, hash_of_name(name(event)), i);
      call_plugin({plugin("callback", s_.config.callbacks[i]), fmt::format("on({})", name(event)),
                   run_.step},
                  [&] { s_.callbacks[i]->on(event, run_, requests_); });
    }
  }

  /// What a callback asks for on any rank, all ranks do.
  void agree_on_requests() {
    agree();
    run_.stop_reason = requests_.stop_reason();
  }

  void agree() {
    if (s_.mesh.world.size() == 1) return;
    std::vector<double> ranks{requests_.stop_reason().empty() ? 0.0 : 1.0,
                              requests_.wants_checkpoint() ? 1.0 : 0.0,
                              requests_.is_best() ? 1.0 : 0.0};
    parallel::sum_in_place(ranks, s_.mesh.world);
    if (ranks[1] > 0) requests_.checkpoint();
    if (ranks[2] > 0) requests_.best_checkpoint();
    if (ranks[0] == 0) return;
    const auto reasons = s_.mesh.world.gather(requests_.stop_reason());
    requests_.stop(
        *std::ranges::find_if(reasons, [](const std::string& reason) { return !reason.empty(); }));
  }

  /// Times differ between ranks, and callbacks must not decide differently.
  std::vector<double> as_rank_0_measured(std::vector<double> seconds) const {
    if (s_.mesh.world.size() > 1)
      s_.mesh.world.broadcast(seconds.data(), seconds.size() * sizeof(double));
    return seconds;
  }

  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    if (s_.mesh.world.root())
      fmt::print(stderr, "{}\n", fmt::format(text, std::forward<Args>(args)...));
  }

  void announce() {
    on_root(s_.mesh.world, [&] {
      if (s_.begins) s_.begins();
    });
  }

  void begin(const Resume& resume) {
    std::optional<std::filesystem::path> newest;
    if (resume.wanted) newest = newest_checkpoint(checkpoint_folder(s_.config), s_.mesh.world);
    if (newest) return go_on_from(*newest, resume.anyway);
    if (resume.wanted)
      say("no checkpoint in {}: starting from the beginning",
          checkpoint_folder(s_.config).string());
    announce();
    micro_batch_ = options_.micro_batch;
    if (micro_batch_ == 0) {
      micro_batch_ = find_micro_batch(s_);
      say("train.micro_batch: {} samples fit", micro_batch_);
    }
    evaluate_the_base();
    hold_trained_once();
    if (without_target_ > 0)
      say("warning: {} of the {} validation samples have no target and are skipped: {}",
          without_target_, validation_samples(), why_without_target);
  }

  std::optional<BaseEvaluation> evaluate_alone() {
    say("evaluating the base on {} samples", validation_samples());
    const auto metrics = evaluate_validation(/*base_alone=*/true);
    return metrics ? std::optional(BaseEvaluation{*metrics, without_target_}) : std::nullopt;
  }

  /// Or remembers what another run of the same base found.
  void evaluate_the_base() {
    const auto found = [this] {
      const UntrainedBase base(s_);
      return evaluate_base(s_, interruption_, [this] { return evaluate_alone(); });
    }();
    s_.base_values.clear();
    if (!found) return;
    base_ = run_.metrics = found->metrics;
    without_target_ = found->without_target;
    if (found->is_remembered)
      say("the base on {} samples: as an earlier run of it found", validation_samples());
  }

  void go_on_from(const std::filesystem::path& checkpoint, bool anyway) {
    hold_trained_once();  // what is loaded goes there
    const StoredState stored(checkpoint, s_.mesh.world);
    const auto state = restore(s_, updater_, stored, anyway);
    bool was_told = false;
    s_.mesh.world.agree([&] {
      run_.step = run_.saved_step = state.step;
      run_.seconds = seconds_before_ = state.seconds;
      run_.skipped_steps = state.skipped_steps;
      run_.samples_without_target = state.samples_without_target;
      base_ = state.base;
      run_.metrics = state.newest;
      micro_batch_ = options_.micro_batch > 0 ? options_.micro_batch : state.micro_batch;
      step_is_open_ = state.step_is_open;
      best_.restore(state.least_cost);
      was_told = begin_again(state);
    });
    if (was_told) restore_weights(s_, stored);
    updater_.accept_values();
    s_.base_values.clear();
    announce();
    if (!step_is_open_ && evaluation_due()) evaluated_step_ = run_.step;
    say("resumed from {} at step {}", checkpoint.string(), run_.step);
  }

  /// Not before the base is evaluated: until then a rank puts values in the place of others, and
  /// back. Only with parallel.shard = "weights".
  void hold_trained_once() {
    if (!holds_trained_once(s_)) return;
    const int copy = s_.mesh.data.rank() / sharing_.shards.comm.size();
    tell_obstacle(s_, "what is trained", updater_.hold_once_per_node(s_.mesh.node.split(copy)));
  }

  /// By plugins, of what the ranks of a node hold once.
  void refuse_changes() {
    if (holds_trained_once(s_)) s_.mesh.world.agree([&] { updater_.check_unchanged(); });
  }

  /// After an interruption in the evaluation of the base.
  Outcome nothing_done_yet() {
    say("{}: interrupted by {} before the first step; there is nothing to save yet", run_.name,
        interruption_.reason());
    return outcome();
  }

  // ---- Steps

  void begin_epoch_if_due() {
    const auto epoch = sampler_.epoch_of(run_.step);
    if (epoch == epoch_) return;
    epoch_ = run_.epoch = epoch;
    if (epoch != told_epoch_) s_.strategies->on_epoch(*s_.model, told_epoch_ = epoch, run_.step);
    fire(Event::epoch_begin);
  }

  /// Once for a step that is taken: one that is computed again after an interruption has begun
  /// already.
  void begin_step() {
    if (run_.step != told_step_) s_.strategies->on_step(*s_.model, told_step_ = run_.step);
  }

  /// A strategy may have remembered, outside of what a checkpoint holds, that its epoch and step
  /// have begun. So it is told again; what that does to the state has to be taken back. Whether
  /// there was anything to tell.
  bool begin_again(const LoopState& state) {
    const auto epoch = sampler_.epoch_of(state.step);
    const bool epoch_goes_on =
        state.step_has_begun || (state.step > 0 && epoch == sampler_.epoch_of(state.step - 1));
    if (epoch_goes_on) s_.strategies->on_epoch(*s_.model, told_epoch_ = epoch, state.step);
    if (state.step_has_begun) s_.strategies->on_step(*s_.model, told_step_ = state.step);
    frozen_ = state.frozen;
    hold_frozen(false);  // sums of gradients are made over all that is trained
    return epoch_goes_on || state.step_has_begun;
  }

  void hold_frozen(bool held) {
    for (const auto& [name, parameter] : s_.strategies->trained())
      parameter.set_requires_grad(!held || !frozen_.contains(name));
  }

  /// The one wait for the device in a step: for what its passes left to compute.
  void read(device::Readings& readings) {
    const Stopwatch watch;
    parallel::report_phase("computing", run_.step + 1);
    readings.read();
    interruption_.worked(watch.seconds());
  }

  /// What the summed gradients are to be multiplied by: their mean over the targets, clipped. They
  /// become others where a strategy changes them. Absent when the step is to be left out. What is
  /// wrong is wrong on every rank: the sums are the same everywhere.
  std::optional<double> normalise(const StepSums& sums, double norm,
                                  std::vector<parallel::Shard>& gradients) {
    if (sums.targets == 0)
      s_.mesh.world.agree([&] {
        fail(
            "step {}: no training target in {} samples: check the data's loss_mask and the "
            "dataset's options, such as dataset.max_length, which may cut off answers",
            run_.step + 1, options_.global_batch);
      });
    const auto targets = static_cast<double>(sums.targets);
    run_.loss = sums.loss / targets;
    run_.learning_rate =
        call_plugin({plugin("schedule", s_.config.schedule), "factor", run_.step},
                    [&] { return learning_rate_at(run_.step, run_.steps, options_, *schedule_); });
    run_.grad_norm = 1.0 / targets * norm;
    run_.step_tokens = sums.tokens;
    const bool is_finite = std::isfinite(run_.loss) && std::isfinite(run_.grad_norm);
    skipped_in_a_row_ = is_finite ? 0 : skipped_in_a_row_ + 1;
    if (!is_finite) {
      not_finite(sums.bad_rows);
      return std::nullopt;
    }
    if (change(gradients, 1.0 / targets))
      run_.grad_norm = 1.0 / targets * updater_.norm_of(gradients);
    return clipped(1.0 / targets, run_.grad_norm, options_.clip);
  }

  /// By strategies, which see whole ones. Returns whether they did.
  bool change(std::vector<parallel::Shard>& gradients, double scale) {
    if (!s_.strategies->need_gradients()) return false;
    updater_.spread(gradients);
    if (!s_.strategies->on_gradients(*s_.model, run_.step, scale)) return false;
    gradients = updater_.gradients();
    return true;
  }

  /// The first one is told of at once.
  void count_without_target(const StepSums& sums) {
    if (sums.samples_without_target == 0) return;
    const auto row = s_.mesh.data.max(sums.row_without_target);
    if (run_.samples_without_target == 0)
      say("warning: sample {} of 'train' has no target, so it does not contribute to training: {}; "
          "such samples are counted",
          row, why_without_target);
    run_.samples_without_target += sums.samples_without_target;
  }

  void tell_without_target() const {
    if (run_.samples_without_target == 0) return;
    say("warning: {} of the {} training samples had no target and did not contribute: {}",
        run_.samples_without_target, run_.steps * options_.global_batch, why_without_target);
  }

  /// Notes the samples, so that the step can be computed again by itself; ends the run unless it is
  /// to go on.
  void not_finite(const std::vector<std::int64_t>& bad_rows) {
    const bool loss_is = std::isfinite(run_.loss);
    const auto what = fmt::format("the {} is {}", loss_is ? "gradient norm" : "loss",
                                  loss_is ? run_.grad_norm : run_.loss);
    std::vector<std::int64_t> rows;
    for (const auto& text : s_.mesh.data.gather(nlohmann::json(bad_rows).dump()))
      for (const auto row : nlohmann::json::parse(text).get<std::vector<std::int64_t>>())
        rows.push_back(row);
    // every loss was finite: any of them may have made the gradient so
    if (rows.empty()) rows = sampler_.step_rows(run_.step);
    ++run_.skipped_steps;
    const auto file = run_directory::not_finite_file(run_.directory);
    on_root(s_.mesh.world, [&] {
      run_directory::note_not_finite(run_.directory, {run_.step + 1, what, "train", rows});
      if (options_.on_not_finite == config::NotFinite::stop ||
          skipped_in_a_row_ == most_skipped_in_a_row)
        fail(
            "step {}: {}{}: lower train.learning_rate, set train.clip, or check samples {} of "
            "'train' (listed in {})",
            run_.step + 1, what,
            skipped_in_a_row_ > 1 ? fmt::format(", as in {} steps in a row", skipped_in_a_row_)
                                  : "",
            fmt::join(rows, ", "), file.string());
    });
    say("warning: step {} is skipped: {}; its samples are listed in {}", run_.step + 1, what,
        file.string());
  }

  void end_step(double seconds) {
    ++run_.step;
    const auto agreed = as_rank_0_measured({seconds, seconds_before_ + watch_.seconds()});
    run_.tokens_per_second = static_cast<double>(run_.step_tokens) / agreed[0];
    run_.seconds = agreed[1];
  }

  /// What belongs to a step that has been taken. When it is interrupted, a resumed run does it
  /// first.
  void follow_up() {
    step_is_open_ = true;
    if (interruption_.happened() || (evaluation_due() && !evaluate_now())) return;
    if (run_.step == run_.steps || sampler_.epoch_of(run_.step) != sampler_.epoch_of(run_.step - 1))
      fire(Event::epoch_end);
    step_is_open_ = false;
    if (checkpoint_due()) requests_.checkpoint();
    agree_on_requests();
    if (requests_.wants_checkpoint()) save();
  }

  bool checkpoint_due() const {
    const auto every = s_.config.checkpoint.every;
    return every > 0 && run_.step % every == 0 && run_.saved_step != run_.step;
  }

  // ---- Evaluation

  bool evaluation_due() const {
    if (evaluated_step_ == run_.step) return false;
    const auto& [every, also_at] = std::tie(s_.config.evaluate.every, s_.config.evaluate.also_at);
    return run_.step == run_.steps || (every > 0 && run_.step % every == 0) ||
           std::ranges::count(also_at, run_.step) > 0;
  }

  std::int64_t validation_samples() const {
    return samples_to_evaluate(validation_, s_.config.evaluate.samples);
  }

  std::optional<Metrics> evaluate_validation(bool base_alone = false) {
    parallel::report_phase("evaluation", run_.step);
    const EvaluateOn on{validation_,
                        validation_samples(),
                        s_.config.evaluate.micro_batch,
                        [this] { return interruption_.wanted(); },
                        base_alone,
                        &without_target_};
    auto metrics = evaluate(*s_.model, *s_.strategies, *s_.dataset, on, s_.mesh, s_.device);
    if (!metrics) interruption_.agree();
    return metrics;
  }

  /// False when it was interrupted.
  bool evaluate_now() {
    const auto metrics = evaluate_validation();
    if (!metrics) return false;
    run_.metrics = *metrics;
    evaluated_step_ = run_.step;
    run_.seconds = as_rank_0_measured({seconds_before_ + watch_.seconds()})[0];
    if (best_.is_beaten_by(run_)) requests_.best_checkpoint();
    fire(Event::evaluated);
    return true;
  }

  // ---- The end, and what is kept of it

  Snapshot snapshot() {
    check_replicas(s_.strategies->trained(), s_.mesh.data);
    std::set<std::string> frozen;
    for (const auto& [name, parameter] : s_.strategies->trained())
      if (!parameter.requires_grad()) frozen.insert(name);
    return take_snapshot(s_, updater_, sharing_,
                         {run_.step, run_.seconds, base_, run_.metrics, micro_batch_,
                          run_.skipped_steps, run_.samples_without_target, step_is_open_,
                          told_step_ == run_.step, frozen, best_.cost()});
  }

  bool directory_is_lost() const {
    bool is_lost = false;
    on_root(s_.mesh.world, [&] { is_lost = s_.restore_directory && s_.restore_directory(); });
    return s_.mesh.world.max(is_lost) != 0;
  }

  /// A run that lost its directory saves in the new one and ends: what it had open there is opened
  /// again when it is resumed.
  void save() {
    if (directory_is_lost()) return interruption_.directory_is_lost();
    saving_.finish();  // the last one is whole, whatever is wrong with this one
    saving_.begin(snapshot(), take_requests().is_best());
  }

  /// Those of a checkpoint are answered by it.
  Requests take_requests() {
    auto taken = std::exchange(requests_, {});
    requests_.stop(taken.stop_reason());
    return taken;
  }

  void save_last() {
    agree_on_requests();
    if (directory_is_lost()) run_.saved_step = -1;
    saving_.save_last([this] { return snapshot(); }, take_requests().is_best());
  }

  Outcome interrupt() {
    save_last();
    fire(Event::interrupted);
    return outcome();
  }

  Outcome outcome() const {
    return {{run_.declared, base_, run_.metrics},
            validation_samples(),
            run_.step,
            run_.skipped_steps,
            interruption_.reason(),
            run_.stop_reason};
  }

  Session& s_;
  const config::TrainOptions& options_;
  const Split& validation_;
  Sampler sampler_;
  SessionContext context_{s_};
  parallel::Watchdog watchdog_;  // watches over those that follow, also when they are made
  parallel::Sharing sharing_;
  Updater updater_;
  std::shared_ptr<Schedule> schedule_;
  Interruption interruption_;
  Run run_;
  Requests requests_;
  Best best_{s_.config.checkpoint.keep_best};
  Saving saving_;
  Metrics base_;
  Stopwatch watch_;
  double seconds_before_ = 0;  // of the run's earlier parts
  std::int64_t micro_batch_ = 0;
  std::int64_t epoch_ = -1;
  std::int64_t evaluated_step_ = -1;
  std::int64_t skipped_in_a_row_ = 0;
  std::set<std::string> frozen_;  // when the run was resumed: trained, but not then
  // of which the strategies know that they have begun
  std::int64_t told_epoch_ = -1;
  std::int64_t told_step_ = -1;
  std::int64_t without_target_ = 0;  // validation samples
  bool step_is_open_ = false;        // taken, and what follows it not yet done
};

}  // namespace

Outcome run_loop(Session& session, const Resume& resume) {
  session.mesh.world.agree([&] { check_shard(session); });
  return Loop(session).run(resume);
}

}  // namespace attune::train
