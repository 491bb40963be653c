// Machine files: what a cluster's nodes can do, for plans of runs that are not started. Measured by
// `attune doctor --write`, or from what its makers publish.
#pragma once
#include <attune/schema.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace attune::plan {

/// Per second.
struct Rates {
  double float32 = 0;   // multiplications and additions, in products of matrices
  double bfloat16 = 0;  // the same; 0: as float32
  double memory = 0;    // bytes read and written
  double sums = 0;      // bytes sent between ranks of a node, in a sum over them
  static void describe(Schema<Rates>& s);
};

struct NodeOptions {
  std::int64_t ranks = 1;
  double memory = 0;      // bytes
  double gpu_memory = 0;  // bytes of the GPU of each rank; 0: ranks compute on CPUs
  double program = 0;     // bytes of a rank without a model
  static void describe(Schema<NodeOptions>& s);
};

struct BetweenOptions {
  double sums = 0;     // bytes per second that a node sends; 0: unknown
  double message = 0;  // seconds
  static void describe(Schema<BetweenOptions>& s);
};

struct TrainingOptions {
  double operation = 0;  // seconds in which an operator of LibTorch starts
  double message = 0;    // seconds, within a node
  double hidden = 0;     // share of a sum's time that passes while ranks compute
  double reached = 1;    // share of the rates that training reaches
  double disk = 0;       // bytes per second that are read; 0: unknown
  static void describe(Schema<TrainingOptions>& s);
};

struct Machine {
  std::string name;
  std::string source;
  NodeOptions node;
  Rates alone;     // of one rank while the others of its node wait; of sums: of each of two
  Rates together;  // of all ranks of a node at the same time, added up
  TrainingOptions training;
  BetweenOptions between;

  bool has_gpus() const { return node.gpu_memory > 0; }
  /// Of each of so many ranks on a node that do the same at the same time.
  double of_rank(double Rates::* rate, std::int64_t ranks_of_node) const;
};

/// A path (contains '/' or ends in .toml), or the name of a file in slurm/machines. Reports all
/// mistakes in one Error.
Machine read_machine(const std::string& name_or_file);
/// As read_machine reads it. Atomic.
void write_machine(const std::filesystem::path& file, const Machine& machine);

}  // namespace attune::plan
