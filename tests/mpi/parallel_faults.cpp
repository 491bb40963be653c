// A small run that ends as its argument says; parallel_faults.py starts it and judges. Those that
// begin with "group-" fail within a group of ranks, in the frame that every subcommand of the
// program runs in.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include <attune/mesh.hpp>

#include <thread>

#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "ranks.hpp"

namespace {

using attune::Comm;
using attune::ExitCode;

int last(const Comm& comm) { return comm.size() - 1; }

/// The libraries in this process, and what its environment says of Open MPI.
void print_opened() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(".so") != std::string::npos) std::printf("%s\n", line.c_str());
  for (char** variable = environ; *variable; ++variable)
    if (std::strncmp(*variable, "OMPI_MCA_", 9) == 0 || std::strncmp(*variable, "HWLOC_", 6) == 0)
      std::printf("%s\n", *variable);
}

int run(const Comm& comm, const std::string& how) {
  comm.barrier();
  try {
    if (how == "throw" && comm.rank() == last(comm))
      throw attune::Error("weights.bin: row 7 is damaged");
    if (how == "kill" && comm.rank() == last(comm)) std::raise(SIGKILL);
    if (how == "agree")
      comm.agree([&] {
        if (comm.rank() == last(comm)) attune::fail("data.h5: cannot be read");
      });
    comm.barrier();  // the others wait here for the rank that failed
  } catch (const attune::Error& error) {
    if (how == "throw") attune::abort_all(ExitCode::user_mistake, error.what());
    if (comm.root()) std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(ExitCode::user_mistake);
  }
  if (how == "open") print_opened();
  if (comm.root()) std::printf("%d ranks done\n", comm.size());
  return 0;
}

/// The last rank fails; its shard group waits for it, or fails with it, and the others wait for
/// all.
int run_in_groups(const Comm& world, const std::string& how) {
  const auto mesh = attune::Mesh::make(world, 2);
  const attune::parallel::Watchdog watchdog(world, how == "group-late" ? 2 : 0);
  const bool fails = world.rank() == last(world);
  if (mesh.data.rank() == last(mesh.data)) {
    if (fails && how == "group-throw") attune::fail("weights.bin: row 7 is damaged");
    if (fails && how == "group-fault") throw std::out_of_range("map::at");
    if (fails && how == "group-kill") std::raise(SIGKILL);
    if (fails && how == "group-late") std::this_thread::sleep_for(std::chrono::hours(1));
    if (how == "group-agree")
      mesh.shard.agree([&] {
        if (fails) attune::fail("data.h5: cannot be read");
      });
    mesh.shard.barrier();
  }
  world.barrier();
  if (world.root()) std::printf("%d ranks done\n", world.size());
  return 0;
}

}  // namespace

int main(int, char** argv) {
  const std::string how = argv[1];
  if (how.starts_with("group-"))
    return attune::program::on_ranks([&](const Comm& world) { return run_in_groups(world, how); });
  const attune::MpiSession mpi;
  return run(attune::world(), how);
}
