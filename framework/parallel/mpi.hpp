// MPI behind attune/comm.hpp. The one place where it is started, ended and aborted.
#pragma once
#include <attune/comm.hpp>
#include <attune/error.hpp>
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1  // the old C++ bindings would need a library of their own
#endif
#include <mpi.h>

#include <functional>
#include <string>
#include <vector>

namespace attune {

/// MPI for the life of this object. Works under mpirun and srun, and in a process started without either, which is then alone.
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

/// For libraries that take an MPI communicator. The Comm of this process alone gives MPI_COMM_SELF, or MPI_COMM_NULL when MPI is not up.
MPI_Comm mpi_handle(const Comm& comm);

/// Fault with MPI's own text when code is not MPI_SUCCESS. call: what was tried.
void check_mpi(int code, const char* call);

/// Ends every rank, for a rank that failed alone: prints "[rank r/n] message" to stderr, and mpirun or srun end with the code.
[[noreturn]] void abort_all(const Comm& comm, ExitCode code, const std::string& message);

/// What Comm::agree and on_root throw: every rank throws it, so no rank needs to end the others, and rank 0 reports it once.
class AgreedError : public Error {
 public:
  using Error::Error;
};
class AgreedFault : public Fault {
 public:
  using Fault::Fault;
};

/// Runs work on rank 0 alone; what it throws, all ranks throw, in its words. Collective.
void on_root(const Comm& comm, const std::function<void()>& work);

struct Comm::Impl {
  /// This process alone.
  Impl() = default;
  /// Owns the communicator.
  explicit Impl(MPI_Comm owned);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
};

namespace parallel {

/// How many collective calls this process is inside of now: more than 0 means it waits for other ranks.
int collectives_entered();

/// Says so for as long as it lives.
class InCollective {
 public:
  InCollective();
  ~InCollective();
  InCollective(const InCollective&) = delete;
  InCollective& operator=(const InCollective&) = delete;
};

/// Of the MPI library: "Open MPI v4.1.4".
std::string mpi_version();

/// Element by element over all ranks. Collective.
void sum_in_place(std::vector<double>& values, const Comm& comm);

/// Largest piece handed to MPI in one call, in bytes: its counts are int.
inline constexpr std::size_t largest_message = std::size_t{1} << 30;

}  // namespace parallel
}  // namespace attune
