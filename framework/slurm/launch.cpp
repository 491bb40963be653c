#include "slurm/launch.hpp"

#include <attune/error.hpp>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/host.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {
namespace {

namespace fs = std::filesystem;

int number(const std::string& text) { return text.empty() ? 0 : std::atoi(text.c_str()); }

/// mpirun starts its ranks through daemons that are tasks of srun themselves: what srun said is not about them.
bool by_mpirun(const Variables& variable) { return !variable("OMPI_COMM_WORLD_SIZE").empty(); }

/// A task of srun, and neither the batch script nor a shell in an allocation.
bool by_srun(const Variables& variable) { return !variable("SLURM_STEP_ID").empty() && !variable("SLURM_STEP_NUM_TASKS").empty() && !by_mpirun(variable); }

int visible_gpus() {
  const auto named = environment_variable("CUDA_VISIBLE_DEVICES");
  if (!named.empty()) return static_cast<int>(pieces_of(named, ',').size());
  int count = 0;
  std::error_code none;
  for ([[maybe_unused]] const auto& gpu : fs::directory_iterator("/proc/driver/nvidia/gpus", none)) ++count;
  return count;
}

}  // namespace

std::string environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? value : "";
}

std::string wrong_start(const Variables& variable) {
  if (!by_srun(variable)) return "";
  for (const char* pmi : {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD"})
    if (!variable(pmi).empty()) return "";
  return fmt::format("srun started {} task{} without PMIx, so that MPI cannot connect them and each would train alone: give srun --mpi=pmix (`srun --mpi=list` must name it), or start the ranks with mpirun",
                     variable("SLURM_STEP_NUM_TASKS"), variable("SLURM_STEP_NUM_TASKS") == "1" ? "" : "s");
}

std::string wrong_size(const Variables& variable, int ranks) {
  const int tasks = number(variable("SLURM_STEP_NUM_TASKS"));
  if (!by_srun(variable) || tasks <= 1 || tasks == ranks) return "";
  return fmt::format("srun started {} tasks, but MPI sees {} rank{}: the MPI that Attune was built with does not speak srun's --mpi type; try --mpi=pmix, or start the ranks with mpirun", tasks, ranks,
                     ranks == 1 ? "" : "s");
}

RankPlace RankPlace::here() {
  RankPlace place;
  place.host = host_name();
  place.processors = allowed_processors();
  place.online = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  place.gpus = visible_gpus();
  place.threads = number(environment_variable("OMP_NUM_THREADS"));
  place.node = environment_variable("SLURMD_NODENAME");
  if (place.node.empty()) place.node = place.host;
  return place;
}

std::string RankPlace::text() const { return nlohmann::json{host, processors, online, gpus, threads, node}.dump(); }

RankPlace RankPlace::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json[0], json[1].get<std::vector<int>>(), json[2], json[3], json[4], json[5]};
}

std::vector<std::string> crowded(const std::vector<RankPlace>& ranks) {
  std::map<std::string, std::vector<const RankPlace*>> hosts;
  for (const auto& rank : ranks) hosts[rank.host].push_back(&rank);
  std::vector<std::string> sentences;
  for (const auto& [host, here] : hosts) {
    std::set<int> together;
    for (const auto* rank : here) together.insert(rank->processors.begin(), rank->processors.end());
    const auto& first = *here.front();
    const int count = static_cast<int>(here.size()), processors = static_cast<int>(together.size());
    if (count > processors && processors < first.online)
      sentences.push_back(fmt::format("{}: {} ranks may use {} of {} processors: give srun --cpus-per-task, or mpirun --bind-to none", host, count, processors, first.online));
    else if (first.threads > static_cast<int>(first.processors.size()))
      sentences.push_back(fmt::format("{}: a rank computes with {} threads on {} processor(s): set OMP_NUM_THREADS, or give srun --cpus-per-task", host, first.threads, first.processors.size()));
    if (first.gpus > 0 && count > first.gpus) sentences.push_back(fmt::format("{}: {} ranks share {} GPU(s): start as many ranks on a node as it has GPUs", host, count, first.gpus));
  }
  return sentences;
}

Asked Asked::by(const config::RunConfig& run) {
  Asked asked;
  for (const auto& [section, settings] : run.effective)
    for (const auto& setting : settings)
      for (const auto& [name, member] : {std::pair{"nodes", &Asked::nodes}, {"tasks_per_node", &Asked::tasks_per_node}, {"gpus_per_node", &Asked::gpus_per_node}, {"cpus_per_task", &Asked::cpus_per_task}})
        if (section == "slurm" && setting.name == name) asked.*member = number(setting.value);
  return asked;
}

std::vector<std::string> differences(const Asked& asked, const std::vector<RankPlace>& ranks) {
  std::map<std::string, std::vector<const RankPlace*>> nodes;
  for (const auto& rank : ranks) nodes[rank.node].push_back(&rank);
  std::vector<std::string> sentences;
  const auto many = [](int count, const char* what) { return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s"); };
  // Of the first node where `found` is not as it should be; the others are counted.
  const auto tell = [&](const std::optional<int>& wanted, const auto& found, bool more_is_fine, const char* what, const char* per, const char* option, const char* key) {
    std::string first;
    int count = 0, others = -1;
    for (const auto& [node, here] : nodes) {
      const int number = found(here);
      if (!wanted || number == *wanted || (more_is_fine && number > *wanted)) continue;
      if (others++ < 0) first = node, count = number;
    }
    if (others >= 0)
      sentences.push_back(fmt::format("{}{}: {} for {}, and the run file asks for {}: give {}={} to srun or sbatch, or correct slurm.{}", first, others > 0 ? " and " + many(others, "other node") : "", many(count, what), per, *wanted, option, *wanted, key));
  };
  if (asked.nodes && std::ssize(nodes) != *asked.nodes)
    sentences.push_back(fmt::format("the ranks run on {}, and the run file asks for {}: give --nodes={} to srun or sbatch, or correct slurm.nodes", many(static_cast<int>(nodes.size()), "node"), *asked.nodes, *asked.nodes));
  using Ranks = std::vector<const RankPlace*>;
  tell(asked.tasks_per_node, [](const Ranks& here) { return static_cast<int>(here.size()); }, false, "rank", "the node", "--ntasks-per-node", "tasks_per_node");
  // A rank sees all GPUs of its node, or its own alone.
  tell(asked.gpus_per_node, [](const Ranks& here) { return std::accumulate(here.begin(), here.end(), 0, [](int sum, const RankPlace* rank) { return sum + rank->gpus; }); }, true, "visible GPU", "the node", "--gpus-per-node", "gpus_per_node");
  const auto fewest = [](const Ranks& here) { return static_cast<int>((*std::min_element(here.begin(), here.end(), [](const auto* a, const auto* b) { return a->processors.size() < b->processors.size(); }))->processors.size()); };
  tell(asked.cpus_per_task, fewest, true, "processor", "a rank", "--cpus-per-task", "cpus_per_task");
  return sentences;
}

namespace {

std::vector<RankPlace> places_of(const Comm& comm) {
  std::vector<RankPlace> ranks;
  for (const auto& text : comm.gather(RankPlace::here().text())) ranks.push_back(RankPlace::parse(text));
  return ranks;
}

void tell_notes(const std::vector<std::string>& sentences, const Comm& comm) {
  if (!comm.root()) return;
  for (const auto& sentence : sentences) fmt::print(stderr, "note: {}\n", sentence);
}

/// To the job script, which takes a launch without this file for a failed one.
void tell_launched(const Comm& comm) {
  const auto file = environment_variable("ATTUNE_LAUNCHED");
  if (comm.root() && !file.empty()) std::ofstream(file).put('\n');
}

}  // namespace

std::string gpus_of_job(const Variables& variable) {
  if (variable("SLURM_JOB_ID").empty()) return "";
  if (variable("SLURM_GPUS_ON_NODE") == "0") return "";
  // Lists of indices, in which 0 is the first GPU.
  for (const char* list : {"SLURM_STEP_GPUS", "SLURM_JOB_GPUS"})
    if (const auto value = variable(list); !value.empty()) return fmt::format("{}={}", list, value);
  for (const char* count : {"SLURM_GPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK", "SLURM_GPUS_PER_SOCKET"})
    if (const auto value = variable(count); !value.empty() && value != "0") return fmt::format("{}={}", count, value);
  return "";
}

void check_gpus(const config::RunConfig& run, bool uses_gpu, const Comm& comm) {
  const auto gpus = gpus_of_job(environment_variable);
  const bool leaves_idle = !gpus.empty() && !uses_gpu;
  const bool is_meant = run.parallel.device == "cpu";
  comm.agree([&] {
    if (leaves_idle && !is_meant)
      fail("the job has GPUs ({}), and this LibTorch finds none, so that all would be computed on the CPU: use a CUDA build of LibTorch, "
           "submit without GPUs, or set parallel.device = \"cpu\"", gpus);
  });
  if (leaves_idle && is_meant) tell_notes({fmt::format("the job has GPUs ({}), and parallel.device = \"cpu\" leaves them idle", gpus)}, comm);
}

void check_asked(const config::RunConfig& run, const Comm& comm) {
  if (!slurm_job().empty()) tell_notes(differences(Asked::by(run), places_of(comm)), comm);
}

void check_launch(const Comm& comm) {
  comm.agree([&] {
    if (const auto wrong = wrong_size(environment_variable, comm.size()); !wrong.empty()) fail("{}", wrong);
  });
  tell_notes(crowded(places_of(comm)), comm);
  tell_launched(comm);
}

}  // namespace attune::slurm
