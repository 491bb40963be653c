#include <attune/error.hpp>

#include <cstdlib>

namespace attune::detail {

void assertion_failed(const char* condition, const char* file, int line,
                      const std::string& values) {
  // The rank as Open MPI or Slurm gave it: an assertion must not depend on a working communicator.
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (!rank) rank = std::getenv("SLURM_PROCID");
  throw Fault(
      fmt::format("internal error on rank {}: {} does not hold ({}) at {}:{}; please report this",
                  rank ? rank : "0", condition, values.empty() ? "no values" : values, file, line));
}

}  // namespace attune::detail
