#include "train/saving.hpp"

#include <fmt/core.h>

#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"

namespace attune::train {

Saving::Saving(std::filesystem::path folder, Run& run, Interruption& interruption, std::function<void()> saved)
    : run_(run), interruption_(interruption), saved_(std::move(saved)), folder_(folder), writer_(std::move(folder), run.comm) {}

void Saving::begin(const Snapshot& snapshot) {
  finish();
  unless_it_fails([&] {
    start(snapshot, run_.checkpoints.staged);
    if (!run_.checkpoints.staged) publish();
  });
}

void Saving::finish() {
  if (writer_.in_flight()) unless_it_fails([&] { publish(); });
}

void Saving::save_last(const std::function<Snapshot()>& snapshot) {
  finish();
  if (run_.saved_step == run_.step) return;
  start(snapshot(), /*staged=*/false);
  publish();
}

void Saving::start(const Snapshot& snapshot, bool staged) {
  parallel::report_phase("saving", run_.step);
  step_ = run_.step;
  best_ = run_.best_so_far;
  watch_ = {};
  run_.checkpoint_wanted = run_.best_so_far = false;
  writer_.begin(step_, snapshot, staged);
}

void Saving::publish() {
  parallel::report_phase("saving", run_.step);
  writer_.publish(best_);
  interruption_.saved(watch_.seconds());
  run_.saved_step = step_;
  if (run_.checkpoints.keep > 0) prune_checkpoints(folder_, run_.checkpoints.keep, run_.comm);
  saved_();
}

void Saving::unless_it_fails(const std::function<void()>& work) {
  const auto tell = [&](const std::exception& error) {
    if (run_.comm.root())
      fmt::print(stderr, "warning: the checkpoint of step {} could not be written: {} (the training goes on, older checkpoints are as they were)\n", step_, error.what());
  };
  try {
    work();
  } catch (const AgreedError& error) {
    tell(error);
  } catch (const AgreedFault& error) {
    tell(error);
  }
}

}  // namespace attune::train
