// Callbacks see every event of the loop. They may log, ask for a stop or for a checkpoint; they never touch weights.
#pragma once
#include <attune/comm.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace attune {

/// The events, in the order of the loop that fires them (drawn in train/loop.cpp). Every rank fires them in the same order.
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

/// Every metric that an evaluation may have.
const std::vector<std::string>& metric_names();
/// Whether a larger value of this metric is better. Error naming them all when there is none of this name.
bool larger_is_better(const std::string& metric);

/// How the run's checkpoints are written and kept; a callback sets it on run_begin.
struct CheckpointPolicy {
  std::int64_t keep = 2;  // newest ones that stay, 0: all; the best one stays besides
  bool staged = true;     // written behind the training, from a copy in host memory
};

/// The run as callbacks see it. Numbers are the same on every rank.
struct Run {
  Comm comm;
  std::string name;
  std::filesystem::path directory;
  std::int64_t step = 0;   // optimizer steps done
  std::int64_t steps = 0;  // in all
  std::int64_t epoch = 0;  // from 0
  double loss = 0;         // mean over the step's targets
  double learning_rate = 0;
  double grad_norm = 0;    // before clipping
  std::int64_t step_tokens = 0;     // of the last step, over all ranks
  double tokens_per_second = 0;     // of the last step, over all ranks
  double seconds = 0;               // since the run began
  std::int64_t trainable_parameters = 0;
  std::int64_t parameters = 0;
  std::map<std::string, double> metrics;  // of the newest evaluation: "loss", "perplexity", "accuracy"
  std::string stop_reason;                // set: the run ends after this step
  std::int64_t skipped_steps = 0;         // whose loss or gradient was not finite
  std::int64_t samples_without_target = 0;  // of those that the steps have taken so far: they teach nothing
  CheckpointPolicy checkpoints;
  bool checkpoint_wanted = false, best_so_far = false;
  std::int64_t saved_step = -1;           // of the newest checkpoint that is whole on the disk

  void request_stop(std::string reason) { stop_reason = std::move(reason); }
  /// After this step. best: the state after it is the best so far, so the checkpoint becomes the one named "best".
  void request_checkpoint(bool best = false) { checkpoint_wanted = true, best_so_far = best_so_far || best; }
};

class Callback {
 public:
  virtual ~Callback() = default;
  virtual void on(Event event, Run& run) = 0;
  /// What a resumed run needs to go on as if it had not been interrupted. Text of the callback's own choice.
  virtual std::string state() const { return {}; }
  virtual void restore(const std::string& state) { static_cast<void>(state); }
};

}  // namespace attune
