// A sweep: one run file, and the values in which its trials differ.
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

/// Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter
/// Tuning", arXiv:1810.05934, stopping variant). At steps first, first * factor, first * factor^2,
/// ... a trial ends unless it is among the best 1/factor of those that have reached the step.
struct HalvingOptions {
  std::int64_t first = 0;  // 0: no halving
  std::int64_t factor = 3;
  static void describe(Schema<HalvingOptions>& s);
};

/// A value set by a trial: "train.learning_rate" = "0.001", in TOML syntax.
struct Assignment {
  std::string key;
  std::string value;
  std::string text() const { return key + "=" + value; }
};

struct Trial {
  // name of the run directory, a function of the values only
  std::string name;
  std::vector<Assignment> values;
  /// `values` and the run's name and output folder, for the command line of `attune train`.
  std::vector<std::string> overrides;
};

struct Sweep {
  std::filesystem::path file;
  SweepOptions options;
  HalvingOptions halving;
  std::vector<Trial> trials;  // without duplicates
};

/// Reports all mistakes in one Error. Other errors: no values, two trials with the same name, a
/// condition on a key that is not in the sweep.
Sweep read_sweep(const config::Document& document);

}  // namespace attune::sweep
