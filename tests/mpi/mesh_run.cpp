// mesh_run RUN.toml SHARD_SIZE: trains as `attune train` does, on shard groups of that size. Every
// rank of a group holds the whole model: the run shows that what is data-parallel is divided over
// the data-parallel group, and what concerns all ranks over all of them.
#include <cstdio>
#include <cstdlib>

#include "core/files.hpp"
#include "core/signals.hpp"
#include "parallel/mpi.hpp"
#include "run_directory/places.hpp"
#include "train/loop.hpp"
#include "train/session.hpp"

namespace {

using namespace attune;

int train_on_mesh(const Comm& world, const char* file, int shard_size) {
  auto run = train::open_run(file, {}, world);
  run.mesh = Mesh::make(world, shard_size);
  auto session = train::Session::open(run.config, run.mesh);
  train::identify_base(session);
  on_root(world, [&] {
    std::filesystem::create_directories(run.config.directory());
    write_text(run_directory::run_file(run.config.directory()), run.config.to_toml());
  });
  const auto outcome = train::run_loop(session, {});
  if (world.root())
    std::printf("%lld steps%s%s\n", static_cast<long long>(outcome.step),
                outcome.interrupted_by.empty() ? "" : ", interrupted by ",
                outcome.interrupted_by.c_str());
  return static_cast<int>(outcome.interrupted_by.empty() ? ExitCode::done : ExitCode::interrupted);
}

}  // namespace

int main(int, char** argv) {
  watch_signals();
  const MpiSession mpi;
  const auto world = attune::world();
  try {
    return train_on_mesh(world, argv[1], std::atoi(argv[2]));
  } catch (const AgreedError& error) {
    if (world.root()) std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(ExitCode::user_mistake);
  } catch (const std::exception& error) {
    abort_all(ExitCode::fault, error.what());
  }
}
