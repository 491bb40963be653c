// Callbacks observe every event of the training loop. They may log and request a stop or a
// checkpoint; they must not change weights.
#pragma once
#include <attune/api.hpp>
#include <attune/comm.hpp>
#include <attune/metric.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// Events, in the order in which the training loop fires them (diagram in train/loop.cpp). The
/// order is the same on every rank.
enum class Event {
  run_begin,
  epoch_begin,
  step_begin,
  // gradients are summed, scaled and clipped; the optimizer has not stepped yet
  gradients_ready,
  step_end,
  // after an evaluation, every evaluate.every steps
  evaluated,
  epoch_end,
  // a checkpoint is complete on disk, possibly some steps after it was due
  checkpoint_saved,
  // the state is saved, and the run ends before its last step
  interrupted,
  run_end,
};

/// "run_begin", "epoch_begin", ...
const char* name(Event event);

/// State of the run, as passed to callbacks. All numbers are the same on every rank.
struct Run {
  Comm comm;  // every rank of the run (Mesh::world)
  std::string name;
  std::filesystem::path directory;
  std::int64_t step = 0;   // completed optimizer steps
  std::int64_t steps = 0;  // total optimizer steps
  std::int64_t epoch = 0;  // from 0
  double loss = 0;         // mean over the step's targets
  double learning_rate = 0;
  double grad_norm = 0;          // before clipping
  std::int64_t step_tokens = 0;  // tokens of the last step, summed over all ranks
  double tokens_per_second = 0;  // throughput of the last step over all ranks
  double seconds = 0;            // since the start of the run
  std::int64_t trainable_parameters = 0;
  std::int64_t parameters = 0;
  std::vector<Metric> declared;           // metrics that an evaluation of this run measures
  std::map<std::string, double> metrics;  // latest evaluation, by metric name
  // means of the values that strategies reported in the last step (Loss::scalars)
  std::map<std::string, double> scalars;
  std::string stop_reason;         // why the run ends early; empty if it does not
  std::int64_t skipped_steps = 0;  // steps with a non-finite loss or gradient
  // samples trained on so far that had no target and so contributed no gradient
  std::int64_t samples_without_target = 0;
  std::int64_t saved_step =
      -1;  // step of the newest checkpoint that is complete on disk; -1 if none

  /// Returns the declaration of a metric. Error for an unknown name; it lists the run's metrics.
  const Metric& metric(const std::string& name) const;
};

/// Requests of a callback to the run. A request of any rank takes effect on all ranks after the
/// step.
class Requests {
 public:
  /// Ends the run after the current step. The reason is stored in the run's record.
  void stop(std::string reason) { stop_reason_ = std::move(reason); }
  /// Saves a checkpoint after the current step.
  void checkpoint() { checkpoint_ = true; }
  /// Marks the state after this step as the best so far: saves a checkpoint and names it "best".
  void best_checkpoint() { checkpoint_ = best_ = true; }

  const std::string& stop_reason() const { return stop_reason_; }
  bool wants_checkpoint() const { return checkpoint_; }
  bool is_best() const { return best_; }

 private:
  std::string stop_reason_;
  bool checkpoint_ = false;
  bool best_ = false;
};

class Callback {
 public:
  virtual ~Callback() = default;
  /// Called on every rank for every event.
  virtual void on(Event event, const Run& run, Requests& requests) = 0;
  /// State that a resumed run passes to restore(). The format is the callback's own.
  virtual std::string state() const { return {}; }
  /// Restores the result of state() when a run resumes.
  virtual void restore(const std::string& state) { static_cast<void>(state); }
};

}  // namespace attune
ATTUNE_API_END
