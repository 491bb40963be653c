// Where the ranks of a run compute, and with how many threads.
#pragma once
#include <string>
#include <vector>

#include <attune/comm.hpp>

#include "placement/launcher.hpp"

namespace attune::placement {

/// What a user may say about it; see [parallel] of the run file.
struct Wishes {
  int threads = 0;             // a rank; 0: OMP_NUM_THREADS, else the cores that are its own
  bool keep_binding = false;   // also one that mpirun chose unasked
  bool equal_threads = false;  // on all ranks, so that each sums alike
};

/// Where one rank runs.
struct RankPlace {
  std::string host;
  Processors processors;  // it may run on
  int online = 0;         // processors of the host
  int gpus = 0;           // it sees
  // it computes with; before that is decided: it asks for, 0: not said
  int threads = 0;
  std::string node{};        // as Slurm calls the host; its name elsewhere
  std::vector<int> cores{};  // that its processors belong to
  int owned = 0;             // cores of the host that belong to the run

  static RankPlace here(const Topology& topology);
  std::string text() const;
  static RankPlace parse(const std::string& text);
};

/// Where mpirun bound this rank unasked: binds it to its share of the cores that belong to the run,
/// and starts the program again, for libgomp counts the processors when it is loaded and waits
/// impatiently on those alone. To be called before all else, where errors are told.
void start_on_share(char** arguments);

/// Sets the number of threads, after a binding that is to be kept has been given back. Collective;
/// before anything computes. Returns what it came to.
std::vector<RankPlace> place_ranks(const Wishes& wishes, const Comm& comm);

/// Threads of each rank: its cores, shared with the ranks that have the same.
std::vector<int> fair_threads(const std::vector<RankPlace>& ranks);

/// "2 ranks x 32 threads on 1 node, 64 of 64 cores"
std::string summary(const std::vector<RankPlace>& ranks);

/// What makes ranks slow though nothing is wrong: several on one core, more threads than
/// processors, GPUs shared. A sentence each.
std::vector<std::string> crowded(const std::vector<RankPlace>& ranks);

/// Cores that belong to the run and compute nothing. A sentence for each host.
std::vector<std::string> idle(const std::vector<RankPlace>& ranks);

/// Both, where the user did not choose the number of threads.
std::vector<std::string> remarks(const std::vector<RankPlace>& ranks, const Wishes& wishes);

}  // namespace attune::placement
