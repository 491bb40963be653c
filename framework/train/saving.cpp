#include "train/saving.hpp"

#include <fmt/format.h>

#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"

namespace attune::train {

Saving::Saving(const config::CheckpointOptions& policy, std::filesystem::path folder, Run& run,
               Interruption& interruption, std::function<void()> saved)
    : policy_(policy),
      run_(run),
      interruption_(interruption),
      saved_(std::move(saved)),
      folder_(folder),
      writer_(std::move(folder), run.comm) {}

void Saving::begin(const Snapshot& snapshot, bool is_best) {
  finish();
  unless_it_fails([&] {
    start(snapshot, is_best, policy_.staged);
    if (!policy_.staged) publish();
  });
}

void Saving::finish() {
  if (writer_.in_flight()) unless_it_fails([&] { publish(); });
}

void Saving::save_last(const std::function<Snapshot()>& snapshot, bool is_best) {
  finish();
  if (run_.saved_step == run_.step) return;
  start(snapshot(), is_best, /*staged=*/false);
  publish();
}

void Saving::start(const Snapshot& snapshot, bool is_best, bool staged) {
  parallel::report_phase("saving", run_.step);
  step_ = run_.step;
  best_ = is_best;
  watch_ = {};
  writer_.begin(step_, snapshot, staged);
}

void Saving::publish() {
  parallel::report_phase("saving", run_.step);
  writer_.publish(best_);
  interruption_.saved(watch_.seconds());
  run_.saved_step = step_;
  if (policy_.keep > 0) prune_checkpoints(folder_, policy_.keep, run_.comm);
  saved_();
}

void Saving::unless_it_fails(const std::function<void()>& work) {
  const auto tell = [&](const std::exception& error) {
    if (run_.comm.root())
      fmt::print(stderr,
                 "warning: the checkpoint of step {} could not be written: {} (training continues, "
                 "older checkpoints are unchanged)\n",
                 step_, error.what());
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
