#include "tuned_run.hpp"

#include <attune/error.hpp>

#include "checkpoint/checkpoint.hpp"
#include "ranks.hpp"
#include "run_directory/places.hpp"
#include "train/state.hpp"

namespace attune::program {
namespace fs = std::filesystem;

TunedRun open_tuned_run(const fs::path& path, const std::string& checkpoint_name, const Comm& comm,
                        const std::vector<std::string>& overrides) {
  const bool is_directory = run_directory::is_run_directory(path);
  auto opened =
      train::open_run(is_directory ? run_directory::run_file(path) : path, overrides, comm);
  const auto directory = is_directory ? path : opened.config.directory();
  const auto checkpoint =
      named_checkpoint(run_directory::checkpoints(directory), checkpoint_name, comm);
  auto waiting = watch_waiting(place_ranks(opened.config.parallel, comm), comm);
  auto session = train::Session::open(opened.config, opened.mesh);
  return {std::move(waiting), std::move(opened), std::move(session), directory, checkpoint};
}

void TunedRun::load_tuned() {
  train::restore_weights(session, StoredState(checkpoint, session.mesh.world));
}

}  // namespace attune::program
