// Callbacks see every event of the loop. They may log, ask for a stop or for a checkpoint; they
// never touch weights.
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

/// The events, in the order of the loop that fires them (drawn in train/loop.cpp). Every rank fires
/// them in the same order.
enum class Event {
  run_begin,
  epoch_begin,
  step_begin,
  gradients_ready,
  step_end,
  evaluated,
  epoch_end,
  checkpoint_saved,
  interrupted,
  run_end,
};

/// "run_begin", "epoch_begin", ...
const char* name(Event event);

/// The run as callbacks see it. Numbers are the same on every rank.
struct Run {
  Comm comm;  // every rank of the run (Mesh::world)
  std::string name;
  std::filesystem::path directory;
  std::int64_t step = 0;   // optimizer steps done
  std::int64_t steps = 0;  // in all
  std::int64_t epoch = 0;  // from 0
  double loss = 0;         // mean over the step's targets
  double learning_rate = 0;
  double grad_norm = 0;          // before clipping
  std::int64_t step_tokens = 0;  // of the last step, over all ranks
  double tokens_per_second = 0;  // of the last step, over all ranks
  double seconds = 0;            // since the run began
  std::int64_t trainable_parameters = 0;
  std::int64_t parameters = 0;
  std::vector<Metric> declared;           // what an evaluation of this run measures
  std::map<std::string, double> metrics;  // of the newest evaluation, by the names in `declared`
  // of the last step: the means of what strategies report (Loss::scalars)
  std::map<std::string, double> scalars;
  std::string stop_reason;         // why it ends early; empty: it does not
  std::int64_t skipped_steps = 0;  // whose loss or gradient was not finite
  // of those that the steps have taken so far: they teach nothing
  std::int64_t samples_without_target = 0;
  std::int64_t saved_step = -1;  // of the newest checkpoint that is whole on the disk

  /// The declaration of that name. Error naming those of this run when there is none.
  const Metric& metric(const std::string& name) const;
};

/// What a callback may ask of the run. What one rank asks for, all do, after the step.
class Requests {
 public:
  /// The run ends, and its record says why.
  void stop(std::string reason) { stop_reason_ = std::move(reason); }
  void checkpoint() { checkpoint_ = true; }
  /// The state after this step is the best so far: its checkpoint becomes the one named "best".
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
  virtual void on(Event event, const Run& run, Requests& requests) = 0;
  /// What a resumed run needs to go on as if it had not been interrupted. Text of the callback's
  /// own choice.
  virtual std::string state() const { return {}; }
  virtual void restore(const std::string& state) { static_cast<void>(state); }
};

}  // namespace attune
ATTUNE_API_END
