#include "ranks.hpp"

#include "parallel/mpi.hpp"

namespace attune::program {
namespace {

int report(const Comm& comm, ExitCode code, const std::exception& error, bool everywhere) {
  if (!everywhere && comm.size() > 1) abort_all(comm, code, error.what());
  if (comm.root()) fmt::print(stderr, "attune: {}\n", error.what());
  return static_cast<int>(code);
}

}  // namespace

int on_ranks(const std::function<int(const Comm&)>& work) {
  const MpiSession mpi;
  const Comm comm = world();
  try {
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

}  // namespace attune::program
