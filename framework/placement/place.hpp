// Placement of a run's ranks, and their numbers of threads.
#pragma once
#include <string>
#include <vector>

#include <attune/comm.hpp>

#include "placement/launcher.hpp"

namespace attune::placement {

/// User settings; see [parallel] of the run file.
struct Wishes {
  int threads = 0;             // per rank; 0: OMP_NUM_THREADS, or the rank's own cores
  bool keep_binding = false;   // also keep mpirun's default binding
  bool equal_threads = false;  // same number on all ranks, for identical sums
};

/// Placement of one rank.
struct RankPlace {
  std::string host;
  Processors processors;  // allowed processors
  int online = 0;         // number of processors of the host
  int gpus = 0;           // number of visible GPUs
  // threads in use; before placement: requested number, 0 if unspecified
  int threads = 0;
  std::string node{};        // Slurm's node name; otherwise the host name
  std::vector<int> cores{};  // cores of the processors
  int owned = 0;             // cores of the host that belong to the run
  // of the visible GPUs: an index, "GPU-...", "MIG-...", or the host's own name
  std::vector<std::string> gpu_names{};

  static RankPlace here(const Topology& topology);
  std::string text() const;
  static RankPlace parse(const std::string& text);
};

/// If mpirun bound this rank by default, binds it to its share of the run's cores and restarts the
/// program. The restart is necessary because libgomp counts the processors at load time and spins
/// only on those. Call it before everything else, where errors are reported.
void start_on_share(char** arguments);

/// Sets the number of threads, after restoring a binding that must be kept. Must be called before
/// any computation. Returns the placement of all ranks. Collective.
std::vector<RankPlace> place_ranks(const Wishes& wishes, const Comm& comm);

/// Threads of each rank: its cores, divided among the ranks that share them.
std::vector<int> fair_threads(const std::vector<RankPlace>& ranks);

/// "2 ranks x 32 threads on 1 node, 64 of 64 cores"
std::string summary(const std::vector<RankPlace>& ranks);

/// Number of GPUs that ranks of one host see together, whether each sees all of them or its own
/// alone. Where names cannot tell GPUs apart, each rank's are taken for its own: only LibTorch's
/// UUIDs of devices tell then.
int gpus_together(const std::vector<const RankPlace*>& ranks);

/// Warnings about slow placements: several ranks per core, more threads than processors, shared
/// GPUs. One sentence each.
std::vector<std::string> crowded(const std::vector<RankPlace>& ranks);

/// Warnings about idle cores of the run, one sentence per host.
std::vector<std::string> idle(const std::vector<RankPlace>& ranks);

/// crowded() and idle(), if the user did not choose the number of threads.
std::vector<std::string> remarks(const std::vector<RankPlace>& ranks, const Wishes& wishes);

}  // namespace attune::placement
