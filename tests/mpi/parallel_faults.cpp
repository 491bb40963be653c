// A small run that ends as its argument says; parallel_faults.py starts it and judges.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "parallel/mpi.hpp"

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
    if (std::strncmp(*variable, "OMPI_MCA_", 9) == 0 || std::strncmp(*variable, "HWLOC_", 6) == 0) std::printf("%s\n", *variable);
}

int run(const Comm& comm, const std::string& how) {
  comm.barrier();
  try {
    if (how == "throw" && comm.rank() == last(comm)) throw attune::Error("weights.bin: row 7 is damaged");
    if (how == "kill" && comm.rank() == last(comm)) std::raise(SIGKILL);
    if (how == "agree")
      comm.agree([&] {
        if (comm.rank() == last(comm)) attune::fail("data.h5: cannot be read");
      });
    comm.barrier();  // the others wait here for the rank that failed
  } catch (const attune::Error& error) {
    if (how == "throw") attune::abort_all(comm, ExitCode::user_mistake, error.what());
    if (comm.root()) std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(ExitCode::user_mistake);
  }
  if (how == "open") print_opened();
  if (comm.root()) std::printf("%d ranks done\n", comm.size());
  return 0;
}

}  // namespace

int main(int, char** argv) {
  const attune::MpiSession mpi;
  return run(attune::world(), argv[1]);
}
