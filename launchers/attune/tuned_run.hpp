// A run directory opened again: for evaluation, generation and export.
#pragma once
#include "placement/waiting.hpp"
#include "train/session.hpp"

namespace attune::program {

struct TunedRun {
  std::unique_ptr<placement::Waiting> waiting;
  train::OpenedRun opened;
  train::Session session;  // the base, prepared by the strategy
  std::filesystem::path directory;
  std::filesystem::path checkpoint;

  /// From base to tuned.
  void load_tuned();
};

/// A run directory, or a run file whose run was trained, with its checkpoint of that name (latest,
/// best, or a step). Collective. Error when it is not there or not whole.
TunedRun open_tuned_run(const std::filesystem::path& path, const std::string& checkpoint,
                        const Comm& comm, const std::vector<std::string>& overrides = {});

}  // namespace attune::program
