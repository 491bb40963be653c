#include "slurm/environment.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <regex>
#include <set>
#include <string_view>

#include "core/names.hpp"

namespace attune::slurm {
namespace {

using config::SlurmOptions;

bool starts_with_any(std::string_view name, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

/// How Slurm is reached, and what a site sets for all of its programs.
bool is_about_the_cluster(std::string_view name) {
  return starts_with_any(name, {"SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS", "SLURM_PMIX_",
                                "SLURM_UMASK", "PMIX_MCA_"});
}

/// What a step of a job tells its ranks of themselves: another job's ranks would take it for
/// theirs.
bool is_of_a_rank(std::string_view name) {
  return starts_with_any(name, {"PMIX_", "PMI_", "PMI2_", "PRTE_", "OMPI_COMM_",
                                "OMPI_UNIVERSE_SIZE", "OMPI_MCA_orte_", "OMPI_MCA_ess_"});
}

bool is_of_slurm(std::string_view name) {
  return starts_with_any(name, {"SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_",
                                "SINFO_", "SACCT_", "SCONTROL_"});
}

/// The GPUs of the job that the shell is in.
bool is_of_a_device(std::string_view name) {
  return starts_with_any(name, {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
                                "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL"});
}

/// What the run file may leave open, and sites set for everybody.
struct Taken {
  const char* variable;
  const char* key;  // of [slurm]
  std::string SlurmOptions::* member;
};
constexpr Taken taken_keys[] = {{"SBATCH_ACCOUNT", "account", &SlurmOptions::account},
                                {"SBATCH_PARTITION", "partition", &SlurmOptions::partition},
                                {"SBATCH_QOS", "qos", &SlurmOptions::qos},
                                {"SBATCH_CONSTRAINT", "constraint", &SlurmOptions::constraint},
                                {"SBATCH_RESERVATION", "reservation", &SlurmOptions::reservation},
                                {"SBATCH_TIMELIMIT", "time", &SlurmOptions::time},
                                {"SBATCH_MEM_PER_NODE", "memory", &SlurmOptions::memory}};

/// The same of what has no key, and is an option of sbatch.
constexpr std::pair<const char*, const char*> taken_options[] = {
    {"SBATCH_EXPORT", "export"}, {"SBATCH_WCKEY", "wckey"}, {"SBATCH_CLUSTERS", "clusters"}};

/// Fit to stand in a line of the job script.
bool is_one_line(const std::string& value) {
  return !value.empty() &&
         std::none_of(value.begin(), value.end(), [](unsigned char c) { return c < 0x20; });
}

std::string left_aside(const std::string& variable, const std::string& value) {
  return fmt::format("{}={} in the environment is ignored: the run file determines the job",
                     variable, value);
}

}  // namespace

Environment current_environment() {
  Environment all;
  for (char** variable = environ; *variable; ++variable) {
    const std::string text = *variable;
    const auto equals = text.find('=');
    if (equals != std::string::npos) all.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return all;
}

Environment without_slurm(const Environment& all) {
  const bool in_a_job = all.contains("SLURM_JOB_ID");
  Environment rest;
  for (const auto& [name, value] : all) {
    const bool overrules =
        is_of_slurm(name) || is_of_a_rank(name) || (in_a_job && is_of_a_device(name));
    if (!overrules || is_about_the_cluster(name)) rest.emplace(name, value);
  }
  return rest;
}

std::vector<std::string> as_texts(const Environment& environment) {
  std::vector<std::string> texts;
  for (const auto& [name, value] : environment) texts.push_back(name + "=" + value);
  return texts;
}

Said run_slurm(const std::vector<std::string>& command) {
  return run_command(command, as_texts(without_slurm(current_environment())));
}

void forget_step() {
  for (const auto& [name, value] : current_environment())
    if (starts_with_any(name, {"SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_EXPORT_ENV"}))
      ::unsetenv(name.c_str());
}

std::string with_variables_replaced(const std::string& text) {
  static const std::regex form(R"(\\\$|\$([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\})");
  std::string replaced;
  auto rest = text.cbegin();
  for (std::sregex_iterator one(text.begin(), text.end(), form), end; one != end; ++one) {
    replaced.append(rest, (*one)[0].first);
    const auto name = (*one)[1].str() + (*one)[2].str();
    const char* value = name.empty() ? "$" : std::getenv(name.c_str());
    replaced += value ? value : "";
    rest = (*one)[0].second;
  }
  return replaced.append(rest, text.cend());
}

std::vector<std::string> take_over(const Environment& environment, SlurmOptions& options) {
  std::vector<std::string> told;
  std::set<std::string> taken;
  const auto took = [&](const std::string& key, const std::string& variable,
                        const std::string& value) {
    taken.insert(variable);
    told.push_back(
        fmt::format("{} = \"{}\" is taken from {} in the environment: the run file does not set it",
                    key, value, variable));
  };
  for (const auto& [variable, key, member] : taken_keys) {
    const auto found = environment.find(variable);
    if (found == environment.end() || !is_one_line(found->second) || !(options.*member).empty())
      continue;
    options.*member = found->second;
    took(fmt::format("slurm.{}", key), variable, found->second);
  }
  for (const auto& [variable, option] : taken_options) {
    const auto found = environment.find(variable);
    if (found == environment.end() || !is_one_line(found->second)) continue;
    if (!options.options.emplace(option, found->second).second) continue;
    took(fmt::format("slurm.options.{}", option), variable, found->second);
  }
  const auto job = environment.find("SLURM_JOB_ID");
  const bool in_a_job = job != environment.end();
  for (const auto& [name, value] : environment)
    if (name.starts_with("SBATCH_") && !taken.contains(name))
      told.push_back(left_aside(name, value));
    else if (!in_a_job && starts_with_any(name, {"SLURM_", "SRUN_"}) && !is_about_the_cluster(name))
      told.push_back(left_aside(name, value));
  if (in_a_job)
    told.push_back(fmt::format(
        "this shell runs inside job {}: that job's variables (SLURM_*, SRUN_*, PMIX_*) are ignored",
        job->second));
  return told;
}

}  // namespace attune::slurm
