#include "core/host.hpp"

#include <sched.h>
#include <unistd.h>

#include <cstdlib>

namespace attune {

std::string environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? value : "";
}

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

std::string slurm_job() {
  const auto array = environment_variable("SLURM_ARRAY_JOB_ID");
  return array.empty() ? environment_variable("SLURM_JOB_ID")
                       : array + "_" + environment_variable("SLURM_ARRAY_TASK_ID");
}

std::vector<int> allowed_processors(pid_t process) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ::sched_getaffinity(process, sizeof allowed, &allowed);
  std::vector<int> numbers;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &allowed)) numbers.push_back(i);
  return numbers;
}

bool multiplies_bfloat16() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace attune
