// Names and paths of the files in a run directory; docs/run-directory.md describes their contents.
// Only this component spells out the names (test unit.layout).
#pragma once
#include <filesystem>
#include <string>

namespace attune::run_directory {

/// For job scripts; C++ code uses the path functions below.
namespace names {
inline constexpr const char* run_file = "run.toml";
inline constexpr const char* record = "record.json";
inline constexpr const char* metrics = "metrics.jsonl";
inline constexpr const char* evaluation = "evaluation.json";
inline constexpr const char* not_finite = "not_finite.jsonl";
inline constexpr const char* checkpoints = "checkpoints";
inline constexpr const char* adapter = "adapter";
inline constexpr const char* model = "model";
inline constexpr const char* job_script = "job.sbatch";
inline constexpr const char* jobs = "jobs";
inline constexpr const char* attempts = "attempts";
inline constexpr const char* failures = "failures";
inline constexpr const char* launches = "launches";
inline constexpr const char* launched = ".launched";
inline constexpr const char* trial_log = "trial.log";
}  // namespace names

using Path = std::filesystem::path;

inline Path run_file(const Path& run) { return run / names::run_file; }
inline Path record_file(const Path& run) { return run / names::record; }
inline Path metrics_file(const Path& run) { return run / names::metrics; }
inline Path evaluation_file(const Path& run) { return run / names::evaluation; }
inline Path not_finite_file(const Path& run) { return run / names::not_finite; }
inline Path checkpoints(const Path& run) { return run / names::checkpoints; }
inline Path job_script(const Path& run) { return run / names::job_script; }
inline Path trial_log(const Path& run) { return run / names::trial_log; }

/// Log of Slurm job "12" or "12_3"; or the pattern for a script, with "%j" or "%A_%a".
inline Path job_log(const Path& run, const std::string& job) {
  return run / ("slurm-" + job + ".log");
}

/// Whether this is the file name of a job log or trial log.
bool is_log(const std::string& name);

/// Whether the directory has a run file, i.e. its run was submitted or has begun.
bool is_run_directory(const Path& path);

/// Whether the run has begun, i.e. has a metrics log.
bool has_begun(const Path& run);

/// Whether the folder contains any files of a run; false if it cannot be read.
bool holds_a_run(const Path& folder);

}  // namespace attune::run_directory
