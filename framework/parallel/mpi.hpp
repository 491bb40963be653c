// MPI behind attune/comm.hpp. The one place where it is started, ended and aborted.
#pragma once
#include <attune/comm.hpp>
#include <attune/error.hpp>
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1  // the old C++ bindings would need a library of their own
#endif
#include <mpi.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/traffic.hpp"

namespace attune {

/// MPI for the life of this object. Works under mpirun and srun, and in a process started without
/// either, which is then alone.
class MpiSession {
 public:
  /// Asks for MPI_THREAD_MULTIPLE. Error when this MPI was built without it.
  MpiSession();
  /// Collective: all ranks come here. One that failed alone calls abort_all instead.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

/// All ranks, on a communicator of its own. Collective; MPI must be up.
Comm world();

/// For libraries that take an MPI communicator. The Comm of this process alone gives MPI_COMM_SELF,
/// or MPI_COMM_NULL when MPI is not up.
MPI_Comm mpi_handle(const Comm& comm);

/// Fault with MPI's own text when code is not MPI_SUCCESS. call: what was tried.
void check_mpi(int code, const char* call);

/// Ends every rank that MPI started, whatever their groups, for a rank or group that failed without
/// the others: prints
/// "[rank r/n] message" to stderr, with the rank in MPI_COMM_WORLD, and mpirun or srun end with the
/// code.
[[noreturn]] void abort_all(ExitCode code, const std::string& message);

/// Who throws an agreed failure.
struct Agreement {
  // every rank that MPI started; otherwise the others go on, and have to be ended
  bool by_all = true;
  bool speaks = true;  // this rank reports it, for all that throw it
};

/// What Comm::agree and on_root throw: every rank of the group throws it, and one of them reports
/// it.
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

/// Runs work on rank 0 of the group alone; what it throws, all ranks of the group throw, in its
/// words. Collective.
void on_root(const Comm& comm, const std::function<void()>& work);

/// The same ranks on a communicator of its own, for a thread of its own. Its traffic is counted
/// with that of `comm`. Collective.
Comm duplicate(const Comm& comm);

struct Comm::Impl {
  /// This process alone.
  Impl();
  /// Owns the communicator.
  Impl(MPI_Comm owned, std::shared_ptr<parallel::Traffic> traffic);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::shared_ptr<parallel::Traffic> traffic;  // one for a communicator and all that came of it
};

namespace parallel {

/// How many collective calls this process is inside of now: more than 0 means it waits for other
/// ranks.
int collectives_entered();

/// Says so for as long as it lives.
class InCollective {
 public:
  InCollective();
  /// The same, and counts the call; bytes as parallel/traffic.hpp defines them.
  InCollective(const Comm& comm, Collective kind, std::size_t bytes);
  ~InCollective();
  InCollective(const InCollective&) = delete;
  InCollective& operator=(const InCollective&) = delete;
};

/// Of the MPI library: "Open MPI v4.1.4".
std::string mpi_version();

/// What this rank has handed to the collectives of this Comm, and of all that were split from or
/// duplicate the same world.
TrafficByKind traffic_of_rank(const Comm& comm);
/// The sum over the ranks of the group; this very collective is not in it. Collective.
TrafficByKind traffic_of_ranks(const Comm& comm);

/// Element by element over all ranks of the group. Collective.
void sum_in_place(std::vector<double>& values, const Comm& comm);

/// Largest piece handed to MPI in one call, in bytes: its counts are int.
inline constexpr std::size_t largest_message = std::size_t{1} << 30;

}  // namespace parallel
}  // namespace attune
