// Information about the machine that this process runs on.
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace attune {

/// The value of an environment variable; empty if it is not set. Variables: the replacement for
/// tests.
using Variables = std::function<std::string(const std::string&)>;
std::string environment_variable(const std::string& name);

std::string host_name();

/// Slurm job id of this process, "12", or "12_3" for an array element; empty outside a job.
std::string slurm_job();

/// Processors that a process may run on, by number; 0: this process. Empty if the process has
/// ended.
std::vector<int> allowed_processors(pid_t process = 0);

/// Whether the processor has bfloat16 multiply instructions (AVX512_BF16, which AMX processors also
/// have).
bool multiplies_bfloat16();

}  // namespace attune
