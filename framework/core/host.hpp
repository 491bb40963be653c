// The machine that this process runs on, as it is told to the user and shared among ranks.
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace attune {

/// The value of an environment variable; empty when it is not set. Variables: what tests put in its
/// place.
using Variables = std::function<std::string(const std::string&)>;
std::string environment_variable(const std::string& name);

std::string host_name();

/// Slurm's number of the job this process belongs to, "12", or "12_3" for an element of an array;
/// empty outside.
std::string slurm_job();

/// The processors that a process may run on, by number; 0: this one. Empty when it is gone.
std::vector<int> allowed_processors(pid_t process = 0);

/// Whether the processor has instructions that multiply bfloat16 (AVX512_BF16; those with AMX have
/// it too).
bool multiplies_bfloat16();

}  // namespace attune
