#include "ranks.hpp"

#include <c10/util/Exception.h>

#include "core/files.hpp"
#include "core/out_of_memory.hpp"
#include "device/device.hpp"
#include "parallel/mpi.hpp"
#include "slurm/launch.hpp"

namespace attune::program {
namespace {

/// Of a rank that threw alone, or of a group that did: the others are ended, with its message.
int report(const Comm& world, ExitCode code, const std::exception& error, Agreement who) {
  if (world.size() > 1 && !who.by_all && who.speaks) abort_all(code, error.what());
  if (world.root() && who.by_all) fmt::print(stderr, "attune: {}\n", error.what());
  return static_cast<int>(code);  // the end of MPI waits for the rank that speaks
}

/// Where no step is under way that would know what it holds.
Error out_of_memory(const Comm& comm, const std::exception& error) {
  const std::string_view text = error.what();
  const bool is_of_libtorch = dynamic_cast<const c10::Error*>(&error) != nullptr;
  const auto what =
      is_of_libtorch ? fmt::format(" ({})", text.substr(0, text.find('\n'))) : std::string();
  return Error(fmt::format(
      "rank {} ran out of memory{}: lower train.micro_batch or evaluate.micro_batch, train fewer "
      "parameters (an adapter, such as 'lora'), use a smaller model, or fewer ranks per node",
      comm.rank(), what));
}

/// "cumsum_cuda_kernel does not have a deterministic implementation, but ..."
Error not_deterministic(const std::exception& error) {
  const std::string_view text = error.what();
  if (text.find("CUBLAS_WORKSPACE_CONFIG") != std::string_view::npos)
    return Error(
        "parallel.reproducible needs CUBLAS_WORKSPACE_CONFIG to be :4096:8 or :16:8, and your "
        "environment sets another value: remove it");
  return Error(
      fmt::format("parallel.reproducible cannot be kept on this device (LibTorch: \"{}\"): set "
                  "parallel.reproducible = false, or parallel.device = \"cpu\"",
                  text.substr(0, text.find_first_of(",\n"))));
}

}  // namespace

int on_ranks(const std::function<int(const Comm&)>& work) {
  const auto wrong = slurm::wrong_start(slurm::environment_variable);
  if (!wrong.empty()) {  // MPI would end here, in other words
    if (slurm::environment_variable("SLURM_PROCID") == "0")
      fmt::print(stderr, "attune: {}\n", wrong);
    return static_cast<int>(ExitCode::user_mistake);
  }
  const MpiSession mpi;
  const Comm comm = world();
  const Agreement alone{.by_all = comm.size() == 1, .speaks = true};
  try {
    slurm::check_launch(comm);
    return work(comm);
  } catch (const AgreedError& error) {
    return report(comm, ExitCode::user_mistake, error, error.agreement);
  } catch (const AgreedFault& error) {
    return report(comm, ExitCode::fault, error, error.agreement);
  } catch (const Error& error) {
    return report(comm, ExitCode::user_mistake, error, alone);
  } catch (const std::filesystem::filesystem_error& error) {
    return report(comm, ExitCode::user_mistake, Error(sentence_of(error)), alone);
  } catch (const std::exception& error) {
    if (is_out_of_memory(error))
      return report(comm, ExitCode::user_mistake, out_of_memory(comm, error), alone);
    if (device::is_not_deterministic(error))
      return report(comm, ExitCode::user_mistake, not_deterministic(error), alone);
    return report(comm, ExitCode::fault, error, alone);
  }
}

std::vector<placement::RankPlace> place_ranks(const config::ParallelOptions& options,
                                              const Comm& comm) {
  const placement::Wishes wishes{.threads = static_cast<int>(options.threads),
                                 .keep_binding = options.binding == config::Binding::keep,
                                 .equal_threads = options.reproducible};
  auto ranks = placement::place_ranks(wishes, comm);
  if (comm.root())
    for (const auto& remark : placement::remarks(ranks, wishes))
      fmt::print(stderr, "note: {}\n", remark);
  return ranks;
}

std::unique_ptr<placement::Waiting> watch_waiting(const std::vector<placement::RankPlace>& places,
                                                  const Comm& comm) {
  const auto& mine = places[static_cast<std::size_t>(comm.rank())];
  const auto tell = [host = mine.host](double share) {
    fmt::print(stderr,
               "note: {}: other processes use this run's processors (its threads waited {:.0f} % "
               "of their time for one): until that ends, threads wait without spinning\n",
               host, 100 * share);
  };
  return std::make_unique<placement::Waiting>(mine.threads,
                                              comm.root() ? tell : std::function<void(double)>());
}

}  // namespace attune::program
