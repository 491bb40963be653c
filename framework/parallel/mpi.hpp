// The MPI implementation of attune/comm.hpp. MPI is initialised, finalised and aborted only here.
#pragma once
#include <attune/comm.hpp>
#include <attune/error.hpp>
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1  // the deprecated C++ bindings need another library
#endif
#include <mpi.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/traffic.hpp"

namespace attune {

/// Initialises MPI for the lifetime of this object. Works under mpirun and srun, and in a process
/// started without them, which is then a single rank.
class MpiSession {
 public:
  /// Requests MPI_THREAD_MULTIPLE. Error if the MPI library does not support it.
  MpiSession();
  /// Finalises MPI. Collective; a rank that fails alone must call abort_all instead.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

/// All ranks, on a communicator of its own. Collective. MPI must be initialised.
Comm world();

/// The MPI communicator, for other libraries. For the Comm of this process alone it is
/// MPI_COMM_SELF, or MPI_COMM_NULL if MPI is not initialised.
MPI_Comm mpi_handle(const Comm& comm);

/// Fault with MPI's message if code is not MPI_SUCCESS. call: name of the failed call.
void check_mpi(int code, const char* call);

/// Aborts all ranks of the job, including those outside the caller's group, for a rank or group
/// that failed without the others. Prints "[rank r/n] message" to stderr, with the rank in
/// MPI_COMM_WORLD; mpirun or srun exit with the code.
[[noreturn]] void abort_all(ExitCode code, const std::string& message);

/// Properties of a failure that a group agreed on.
struct Agreement {
  // all ranks of the job throw it; otherwise the remaining ranks must be aborted
  bool by_all = true;
  bool speaks = true;  // this rank reports the failure for all
};

/// Thrown by Comm::agree and on_root on every rank of the group; one rank reports it.
class AgreedError : public Error {
 public:
  AgreedError(const std::string& text, Agreement who) : Error(text), agreement(who) {}
  const Agreement agreement;
};
class AgreedFault : public Fault {
 public:
  AgreedFault(const std::string& text, Agreement who) : Fault(text), agreement(who) {}
  const Agreement agreement;
};

/// Runs `work` on rank 0 of the group only. Exceptions are rethrown on all ranks of the group, with
/// the same text. Collective.
void on_root(const Comm& comm, const std::function<void()>& work);

/// The same ranks on a new communicator, for use by another thread. Its traffic counts toward that
/// of `comm`. Collective.
Comm duplicate(const Comm& comm);

struct Comm::Impl {
  /// A group of this process alone.
  Impl();
  /// Takes ownership of the communicator.
  Impl(MPI_Comm owned, std::shared_ptr<parallel::Traffic> traffic);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::shared_ptr<parallel::Traffic> traffic;  // shared by all communicators derived from one
};

namespace parallel {

/// Number of collectives in progress in this process, of the host or on its devices. More than 0
/// means that it waits for other ranks.
int collectives_entered();

/// Marks a collective call as in progress during its lifetime.
class InCollective {
 public:
  InCollective();
  /// As above, and counts the call. bytes: as defined in parallel/traffic.hpp.
  InCollective(const Comm& comm, Collective kind, std::size_t bytes);
  ~InCollective();
  InCollective(const InCollective&) = delete;
  InCollective& operator=(const InCollective&) = delete;
};

/// Version of the MPI library: "Open MPI v4.1.4".
std::string mpi_version();

/// Input of this rank to the collectives of this Comm, and of all Comms derived from the same
/// world.
TrafficByKind traffic_of_rank(const Comm& comm);
/// Sum over the ranks of the group, without this collective itself. Collective.
TrafficByKind traffic_of_ranks(const Comm& comm);

/// Element-wise sum over all ranks of the group. Collective.
void sum_in_place(std::vector<double>& values, const Comm& comm);

/// Maximum bytes per MPI call, because MPI counts are int.
inline constexpr std::size_t largest_message = std::size_t{1} << 30;

}  // namespace parallel
}  // namespace attune
