#include "train/loop.hpp"

#include <attune/error.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "checkpoint/writer.hpp"
#include "core/signals.hpp"
#include "data/sampler.hpp"
#include "parallel/gradient_sum.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "train/deadline.hpp"
#include "train/memory.hpp"
#include "train/optimizer.hpp"
#include "train/schedule.hpp"
#include "train/state.hpp"

namespace attune::train {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// So many steps in a row without a finite loss and gradient, and the run is no longer worth its time.
constexpr std::int64_t most_skipped_in_a_row = 10;

using Rows = std::vector<std::int64_t>;

/// What a rank computes of a step.
struct Share {
  std::int64_t micro_batches = 0, first = 0;  // of all ranks; the first of this one
  std::vector<Rows> mine;
  bool several = false;  // on some rank
};

/// Sums over the targets of one step, over all ranks.
struct StepSums {
  double loss = 0, targets = 0, tokens = 0;
};

class Loop {
 public:
  explicit Loop(Session& session)
      : s_(session), options_(session.config.train), train_(session.data->split("train")), validation_(session.data->split("validation")),
        steps_(steps_of(options_, train_.size())), sampler_(train_.size(), options_.global_batch, session.config.run.seed, session.comm.size()),
        optimizer_(session.strategy->groups(*session.model), options_), gradients_(optimizer_.parameters(), session.comm, session.config.parallel.reproducible),
        writer_(checkpoint_folder(session.config), session.comm), deadline_(options_, state_bytes()), watchdog_(session.comm, session.config.parallel.watchdog),
        run_(describe_run()) {}

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
    begin(resume);
    if (interrupted_) return nothing_done_yet();
    fire(Event::run_begin);
    if (step_is_open_) follow_up();
    while (run_.step < steps_ && run_.stop_reason.empty() && !interrupted_) {
      begin_epoch_if_due();
      fire(Event::step_begin);
      const auto started = Clock::now();
      if (!forward_backward()) break;  // interrupted: the step will be done again
      if (normalise()) {
        fire(Event::gradients_ready);
        optimizer_.step(run_.learning_rate);
      }
      optimizer_.zero_gradients();
      end_step(seconds_since(started));
      fire(Event::step_end);
      follow_up();
    }
    if (interrupted_ || (evaluated_step_ != run_.step && !evaluate_now())) return interrupt();
    save_last();
    fire(Event::run_end);
    return outcome();
  }

 private:
  // ---- Before the first step

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

  std::size_t state_bytes() const {
    std::size_t bytes = 0;
    for (const auto& [name, tensor] : s_.strategy->state(*s_.model)) bytes += tensor.nbytes();
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

  void begin(const Resume& resume) {
    std::optional<std::filesystem::path> newest;
    if (resume.wanted) newest = newest_checkpoint(checkpoint_folder(s_.config), s_.comm);
    if (newest) return go_on_from(*newest, resume.anyway);
    if (resume.wanted) say("no checkpoint in {}: starting from the beginning", checkpoint_folder(s_.config).string());
    micro_batch_ = options_.micro_batch > 0 ? options_.micro_batch : find_micro_batch();
    say("evaluating the base on {} samples", validation_samples());
    if (const auto metrics = evaluate_validation()) base_ = run_.metrics = *metrics;
  }

  void go_on_from(const std::filesystem::path& checkpoint, bool anyway) {
    const auto snapshot = load_checkpoint(checkpoint, s_.comm);
    s_.comm.agree([&] {
      const auto state = restore(s_, optimizer_, snapshot, anyway);
      run_.step = run_.saved_step = state.step;
      run_.seconds = seconds_before_ = state.seconds;
      run_.skipped_steps = state.skipped_steps;
      base_ = state.base;
      run_.metrics = state.newest;
      micro_batch_ = options_.micro_batch > 0 ? options_.micro_batch : state.micro_batch;
      step_is_open_ = state.step_is_open;
    });
    if (!step_is_open_ && evaluation_due()) evaluated_step_ = run_.step;
    say("resumed from {} at step {}", checkpoint.string(), run_.step);
  }

  std::int64_t find_micro_batch() {
    auto lengths = train_.ragged("tokens") ? train_.lengths("tokens") : std::vector<std::int64_t>(train_.size(), 1);
    Rows longest(lengths.size());
    std::iota(longest.begin(), longest.end(), 0);
    std::sort(longest.begin(), longest.end(), [&](auto a, auto b) { return lengths[a] > lengths[b]; });
    const auto most = (options_.global_batch + s_.comm.size() - 1) / s_.comm.size();
    const auto found = train::find_micro_batch(s_, most, [&](std::int64_t samples) {
      StepSums none;
      forward(Rows(longest.begin(), longest.begin() + samples), none).sum.backward();
    });
    optimizer_.zero_gradients();
    say("train.micro_batch: {} samples fit", found);
    return found;
  }

  /// After an interruption in the evaluation of the base.
  Outcome nothing_done_yet() {
    say("{}: interrupted by {} before the first step; there is nothing to save yet", run_.name, interruption());
    return outcome();
  }

  // ---- Between steps

  void begin_epoch_if_due() {
    const auto epoch = sampler_.epoch_of(run_.step);
    if (epoch == epoch_) return;
    epoch_ = run_.epoch = epoch;
    s_.strategy->on_epoch(*s_.model, epoch);
    fire(Event::epoch_begin);
  }

  void end_step(double seconds) {
    ++run_.step;
    run_.tokens_per_second = static_cast<double>(run_.step_tokens) / seconds;
    run_.seconds = seconds_before_ + seconds_since(started_);
  }

  /// What belongs to a step that has been taken. When it is interrupted, a resumed run does it first.
  void follow_up() {
    step_is_open_ = true;
    if (evaluation_due() && !evaluate_now()) return;
    if (run_.step == steps_ || sampler_.epoch_of(run_.step) != sampler_.epoch_of(run_.step - 1)) fire(Event::epoch_end);
    step_is_open_ = false;
    if (writer_.in_flight() && all_parts_done_) finish_saving();
    if (run_.checkpoint_wanted) save();
  }

  // ---- One step

  Share share_of_step() {
    const auto rows = sampler_.step_rows(run_.step);
    const auto rank = s_.comm.rank(), ranks = s_.comm.size();
    const auto cut = [&](std::span<const std::int64_t> all) {
      std::vector<Rows> pieces;
      for (std::size_t from = 0; from < all.size(); from += micro_batch_) {
        const auto piece = all.subspan(from, std::min<std::size_t>(micro_batch_, all.size() - from));
        pieces.emplace_back(piece.begin(), piece.end());
      }
      return pieces;
    };
    if (!s_.config.parallel.reproducible) return {ranks, rank, cut(Sampler::share(rows, rank, ranks)), static_cast<std::int64_t>(rows.size()) > micro_batch_ * ranks};
    // The same micro-batches on any number of ranks: the step is cut first, then shared out.
    const auto all = cut(rows);
    std::vector<std::int64_t> numbers(all.size());
    std::iota(numbers.begin(), numbers.end(), 0);
    Share share{static_cast<std::int64_t>(all.size()), 0, {}, static_cast<std::int64_t>(all.size()) > ranks};
    const auto mine = Sampler::share(numbers, rank, ranks);
    share.first = mine.data() - numbers.data();
    for (const auto number : mine) share.mine.push_back(all[number]);
    return share;
  }

  /// Leaves the gradients of the step's summed loss on every rank; false when it was interrupted and left.
  bool forward_backward() {
    const auto share = share_of_step();
    gradients_.begin(share.micro_batches, share.first, share.first + static_cast<std::int64_t>(share.mine.size()));
    sums_.assign(s_.config.parallel.reproducible ? first_loss + share.micro_batches : first_loss + 1, 0.0);
    bad_rows_.clear();
    std::optional<Loss> loss;  // whose backward pass is still to come
    for (std::size_t i = 0; i < share.mine.size(); ++i) {
      if (loss) backward(*loss);
      if (share.several && wants_to_stop()) break;
      StepSums sums;
      loss = forward(share.mine[i], sums);
      sums_[s_.config.parallel.reproducible ? first_loss + share.first + i : first_loss] += sums.loss;
      sums_[targets] += sums.targets;
      sums_[tokens] += sums.tokens;
      if (!std::isfinite(sums.loss)) bad_rows_.insert(bad_rows_.end(), share.mine[i].begin(), share.mine[i].end());
    }
    // Before the ranks wait for each other in the last backward pass they agree to make it.
    if (share.several && agree_to_stop()) {
      gradients_.abandon();
      optimizer_.zero_gradients();
      return false;
    }
    if (loss) backward(*loss);
    phase("gradients");
    gradients_.finish();
    sums_[unwritten] = writer_.in_flight() && !writer_.part_is_done();
    sums_[stops] = wants_to_stop();
    phase("step");
    parallel::sum_in_place(sums_, s_.comm);
    all_parts_done_ = sums_[unwritten] == 0;
    if (sums_[stops] > 0) agree_to_stop();
    return true;
  }

  Loss forward(const Rows& rows, StepSums& sums) {
    const auto started = Clock::now();
    phase("forward");
    s_.model->module().train();
    return with_memory([&] {
      auto batch = load_batch(train_, *s_.dataset, rows);
      move_to(batch, s_.device);
      seed_micro_batch(rows.front());
      const auto loss = s_.strategy->loss(*s_.model, batch);
      sums = {loss.sum.item<double>(), static_cast<double>(loss.count), static_cast<double>(batch.length())};
      deadline_.worked(seconds_since(started));
      return loss;
    });
  }

  void backward(Loss& loss) {
    const auto started = Clock::now();
    phase("backward");
    with_memory([&] { gradients_.backward(loss.sum); });
    deadline_.worked(seconds_since(started));
  }

  template <class Work>
  std::invoke_result_t<Work> with_memory(Work work) {
    try {
      return work();
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      fail("step {}: memory ran out on rank {}, which holds {}; lower train.micro_batch (or set it to \"auto\") or the samples' length, or use fewer ranks per node",
           run_.step + 1, s_.comm.rank(), describe(plan_memory(s_), micro_batch_));
    }
  }

  /// Dropout depends on seed, step and samples, never on what was computed before or on which rank.
  void seed_micro_batch(std::int64_t first_row) const {
    std::seed_seq mixed{s_.config.run.seed, run_.step, first_row};
    std::array<std::uint32_t, 2> words{};
    mixed.generate(words.begin(), words.end());
    torch::manual_seed((std::uint64_t{words[0]} << 32) | words[1]);
  }

  /// From the sum over targets to their mean, then clipped; false when the step is to be left out. What is wrong is wrong on every rank:
  /// the sums are the same everywhere.
  bool normalise() {
    if (sums_[targets] == 0)
      s_.comm.agree([&] {
        fail("step {}: no target in {} samples is trained on: check the data's loss_mask and the dataset's options", run_.step + 1, options_.global_batch);
      });
    run_.loss = std::accumulate(sums_.begin() + first_loss, sums_.end(), 0.0) / sums_[targets];
    run_.learning_rate = learning_rate_at(run_.step, steps_, options_);
    run_.grad_norm = optimizer_.scale_and_clip(1.0 / sums_[targets], options_.clip);
    run_.step_tokens = static_cast<std::int64_t>(sums_[tokens]);
    if (std::isfinite(run_.loss) && std::isfinite(run_.grad_norm)) {
      skipped_in_a_row_ = 0;
      return true;
    }
    not_finite(std::isfinite(run_.loss) ? "gradient norm" : "loss", std::isfinite(run_.loss) ? run_.grad_norm : run_.loss);
    return false;
  }

  /// Notes the samples, so that the step can be computed again by itself; ends the run unless it is to go on.
  void not_finite(const char* what, double value) {
    Rows rows;
    for (const auto& text : s_.comm.gather(nlohmann::json(bad_rows_).dump()))
      for (const auto row : nlohmann::json::parse(text).get<Rows>()) rows.push_back(row);
    if (rows.empty()) rows = sampler_.step_rows(run_.step);  // every loss was finite: any of them may have made the gradient so
    ++run_.skipped_steps;
    const bool give_up = options_.on_not_finite == "stop" || ++skipped_in_a_row_ == most_skipped_in_a_row;
    const auto file = run_.directory / "not_finite.jsonl";
    on_root(s_.comm, [&] {
      const nlohmann::ordered_json line{{"step", run_.step + 1}, {"what", what}, {"value", fmt::format("{}", value)}, {"split", "train"}, {"samples", rows}};
      std::ofstream(file, std::ios::app) << line.dump() << "\n";
      if (give_up)
        fail("step {}: the {} is {}{}: lower train.learning_rate, set train.clip, or look at samples {} of 'train' (noted in {})", run_.step + 1, what, value,
             skipped_in_a_row_ > 0 ? fmt::format(", and {} steps in a row were left out", skipped_in_a_row_) : "", fmt::join(rows, ", "), file.string());
    });
    say("warning: step {} is left out, the {} is {}; samples noted in {}", run_.step + 1, what, value, file.string());
  }

  // ---- Interruptions

  void phase(const char* name) const { parallel::report_phase(name, run_.step + 1); }

  /// As this rank sees it.
  bool wants_to_stop() const { return signal_received() != 0 || deadline_.is_due(); }

  /// Collective: when one rank wants to, all do.
  bool agree_to_stop() {
    interrupted_ = s_.comm.max(signal_received() != 0 ? signal_received() : deadline_.is_due() ? time_is_up : 0);
    return interrupted_ != 0;
  }

  std::string interruption() const { return interrupted_ == time_is_up ? "the time limit" : fmt::format("signal {}", interrupted_); }

  Outcome interrupt() {
    save_last();
    fire(Event::interrupted);
    return outcome();
  }

  // ---- Evaluation

  bool evaluation_due() const {
    const auto every = s_.config.evaluate.every;
    return evaluated_step_ != run_.step && (run_.step == steps_ || (every > 0 && run_.step % every == 0));
  }

  std::int64_t validation_samples() const { return samples_to_evaluate(validation_, s_.config.evaluate.samples); }

  std::optional<Metrics> evaluate_validation() {
    phase("evaluation");
    auto metrics = evaluate(*s_.model, *s_.strategy, *s_.dataset, {validation_, validation_samples(), s_.config.evaluate.micro_batch, [this] { return wants_to_stop(); }},
                            s_.comm, s_.device);
    if (!metrics) agree_to_stop();
    return metrics;
  }

  bool evaluate_now() {
    const auto metrics = evaluate_validation();
    if (!metrics) return false;
    run_.metrics = *metrics;
    evaluated_step_ = run_.step;
    run_.seconds = seconds_before_ + seconds_since(started_);
    fire(Event::evaluated);
    return true;
  }

  // ---- Checkpoints

  LoopState state() const { return {run_.step, run_.seconds, base_, run_.metrics, micro_batch_, run_.skipped_steps, step_is_open_}; }

  /// Begun here, it becomes whole behind the next steps. A failure is told, and the training goes on: the older checkpoint is still there.
  void save() {
    finish_saving();
    unless_it_fails([&] {
      begin_saving(run_.checkpoints.staged);
      if (!run_.checkpoints.staged) publish();
    });
  }

  void begin_saving(bool staged) {
    phase("save");
    saving_ = {run_.step, run_.best_so_far, Clock::now()};
    run_.checkpoint_wanted = run_.best_so_far = false;
    writer_.begin(run_.step, take_snapshot(s_, optimizer_, state()), staged);
  }

  void finish_saving() {
    if (writer_.in_flight()) unless_it_fails([&] { publish(); });
  }

  template <class Work>
  void unless_it_fails(Work work) {
    const auto tell = [&](const std::exception& error) {
      say("warning: the checkpoint of step {} could not be written: {} (the training goes on, older checkpoints are as they were)", saving_.step, error.what());
    };
    try {
      work();
    } catch (const AgreedError& error) {
      tell(error);
    } catch (const AgreedFault& error) {
      tell(error);
    }
  }

  void publish() {
    phase("save");
    writer_.publish(saving_.best);
    deadline_.saved(seconds_since(saving_.started));
    run_.saved_step = saving_.step;
    if (run_.checkpoints.keep > 0) prune_checkpoints(checkpoint_folder(s_.config), run_.checkpoints.keep, s_.comm);
    fire(Event::checkpoint_saved);
  }

  /// At the end, or before an interruption: failing is an error.
  void save_last() {
    finish_saving();
    if (run_.saved_step == run_.step) return;
    begin_saving(false);
    publish();
  }

  Outcome outcome() const {
    return {base_, run_.metrics, validation_samples(), run_.step, run_.skipped_steps, interrupted_ ? interruption() : "", run_.stop_reason};
  }

  /// What is summed over the ranks once a step. The losses follow: one sum, or one for each micro-batch when their order is kept.
  enum { targets, tokens, stops, unwritten, first_loss };
  static constexpr std::int64_t time_is_up = 1000;  // no signal has this number

  struct Saving {
    std::int64_t step = 0;
    bool best = false;
    Clock::time_point started;
  };

  Session& s_;
  const config::TrainOptions& options_;
  const Split& train_;
  const Split& validation_;
  std::int64_t steps_;
  std::int64_t micro_batch_ = 0;
  Sampler sampler_;
  Optimizer optimizer_;
  parallel::GradientSum gradients_;
  CheckpointWriter writer_;
  Deadline deadline_;
  parallel::Watchdog watchdog_;
  Run run_;
  Metrics base_;
  std::vector<double> sums_;
  Rows bad_rows_;
  Saving saving_;
  Clock::time_point started_ = Clock::now();
  double seconds_before_ = 0;  // of the run's earlier parts
  std::int64_t epoch_ = -1, evaluated_step_ = -1, interrupted_ = 0, skipped_in_a_row_ = 0;
  bool step_is_open_ = false, all_parts_done_ = false;
};

}  // namespace

Outcome run_loop(Session& session, const Resume& resume) { return Loop(session).run(resume); }

}  // namespace attune::train
