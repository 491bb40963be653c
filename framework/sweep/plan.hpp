// A sweep: one run file, and the values its trials differ in.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "config/document.hpp"

namespace attune::sweep {

struct SweepOptions {
  std::string name;
  std::string run;
  std::string output = "sweeps";
  std::string method = "grid";
  std::int64_t trials = 0;
  std::int64_t seed = 0;
  std::int64_t seeds = 1;
  std::string metric = "loss";
  std::int64_t side_by_side = 0;
  std::int64_t retries = 1;
  double hours = 0;
  static void describe(Schema<SweepOptions>& s);

  std::filesystem::path directory() const { return std::filesystem::path(output) / name; }
};

/// Asynchronous successive halving: at steps first, first * factor, first * factor^2, ... a trial
/// that is not among the best 1/factor of those that came so far ends (Li et al. 2020, "A System
/// for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934, in its stopping form).
struct HalvingOptions {
  std::int64_t first = 0;  // 0: every trial goes on to its end
  std::int64_t factor = 3;
  static void describe(Schema<HalvingOptions>& s);
};

/// A value that a trial sets: "train.learning_rate", "0.001" as in a TOML file.
struct Assignment {
  std::string key;
  std::string value;
  std::string text() const { return key + "=" + value; }
};

struct Trial {
  // of the run directory: the same values have the same name, whatever else is in the sweep
  std::string name;
  std::vector<Assignment> values;
  /// With the run's name and place: for the command line of `attune train`.
  std::vector<std::string> overrides;
};

struct Sweep {
  std::filesystem::path file;
  SweepOptions options;
  HalvingOptions halving;
  std::vector<Trial> trials;  // each once
};

/// All mistakes in one Error. Errors besides: no values, two trials of one name, a condition on a
/// key that is not in the sweep.
Sweep read_sweep(const config::Document& document);

}  // namespace attune::sweep
