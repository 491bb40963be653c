#include "tuned_run.hpp"

#include <attune/error.hpp>

#include "checkpoint/checkpoint.hpp"
#include "ranks.hpp"
#include "train/state.hpp"

namespace attune::program {
namespace fs = std::filesystem;

bool is_run_directory(const fs::path& path) { return fs::is_directory(path) && fs::exists(path / "run.toml"); }

TunedRun open_tuned_run(const fs::path& path, const std::string& checkpoint_name, const Comm& comm, const std::vector<std::string>& overrides) {
  const bool is_directory = is_run_directory(path);
  auto opened = train::open_run(is_directory ? path / "run.toml" : path, overrides, comm);
  const auto directory = is_directory ? path : opened.config.directory();
  const auto checkpoint = named_checkpoint(directory / "checkpoints", checkpoint_name, comm);
  auto waiting = watch_waiting(place_ranks(opened.config.parallel, comm), comm);
  auto session = train::Session::open(opened.config, comm);
  return {std::move(waiting), std::move(opened), std::move(session), directory, checkpoint};
}

void TunedRun::load_tuned() {
  const auto snapshot = load_checkpoint(checkpoint, session.comm);
  session.comm.agree([&] { train::restore_weights(session, snapshot); });
}

}  // namespace attune::program
