#include "ranks.hpp"

#include "parallel/mpi.hpp"
#include "slurm/launch.hpp"

namespace attune::program {
namespace {

int report(const Comm& comm, ExitCode code, const std::exception& error, bool everywhere) {
  if (!everywhere && comm.size() > 1) abort_all(comm, code, error.what());
  if (comm.root()) fmt::print(stderr, "attune: {}\n", error.what());
  return static_cast<int>(code);
}

}  // namespace

int on_ranks(const std::function<int(const Comm&)>& work) {
  const auto wrong = slurm::wrong_start(slurm::environment_variable);
  if (!wrong.empty()) {  // MPI would end here, in other words
    if (slurm::environment_variable("SLURM_PROCID") == "0") fmt::print(stderr, "attune: {}\n", wrong);
    return static_cast<int>(ExitCode::user_mistake);
  }
  const MpiSession mpi;
  const Comm comm = world();
  try {
    slurm::check_launch(comm);
    return work(comm);
  } catch (const AgreedError& error) {
    return report(comm, ExitCode::user_mistake, error, true);
  } catch (const AgreedFault& error) {
    return report(comm, ExitCode::fault, error, true);
  } catch (const Error& error) {
    return report(comm, ExitCode::user_mistake, error, false);
  } catch (const std::exception& error) {
    return report(comm, ExitCode::fault, error, false);
  }
}

std::vector<placement::RankPlace> place_ranks(const config::ParallelOptions& options, const Comm& comm) {
  const placement::Wishes wishes{.threads = static_cast<int>(options.threads),
                                 .keep_binding = options.binding == "keep",
                                 .equal_threads = options.reproducible};
  auto ranks = placement::place_ranks(wishes, comm);
  if (comm.root())
    for (const auto& remark : placement::remarks(ranks, wishes)) fmt::print(stderr, "note: {}\n", remark);
  return ranks;
}

std::unique_ptr<placement::Waiting> watch_waiting(const std::vector<placement::RankPlace>& places, const Comm& comm) {
  const auto& mine = places[static_cast<std::size_t>(comm.rank())];
  const auto tell = [host = mine.host](double share) {
    fmt::print(stderr, "note: {}: other processes use this run's processors (its threads waited {:.0f} % of their time for one): they wait for each other without spinning as long as that lasts\n",
               host, 100 * share);
  };
  return std::make_unique<placement::Waiting>(mine.threads, comm.root() ? tell : std::function<void(double)>());
}

}  // namespace attune::program
