// The machine that this process runs on, as it is told to the user and shared among ranks.
#pragma once
#include <string>
#include <vector>

namespace attune {

std::string host_name();

/// Slurm's number of the job this process belongs to, "12", or "12_3" for an element of an array; empty outside.
std::string slurm_job();

/// The processors this process may run on, by number.
std::vector<int> allowed_processors();

/// Whether the processor has instructions that multiply bfloat16 (AVX512_BF16; those with AMX have it too).
bool multiplies_bfloat16();

}  // namespace attune
