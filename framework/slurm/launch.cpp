#include "slurm/launch.hpp"

#include <attune/error.hpp>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
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
  return place;
}

std::string RankPlace::text() const { return nlohmann::json{host, processors, online, gpus, threads}.dump(); }

RankPlace RankPlace::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json[0], json[1].get<std::vector<int>>(), json[2], json[3], json[4]};
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

void check_launch(const Comm& comm) {
  comm.agree([&] {
    if (const auto wrong = wrong_size(environment_variable, comm.size()); !wrong.empty()) fail("{}", wrong);
  });
  std::vector<RankPlace> ranks;
  for (const auto& text : comm.gather(RankPlace::here().text())) ranks.push_back(RankPlace::parse(text));
  if (!comm.root()) return;
  for (const auto& sentence : crowded(ranks)) fmt::print(stderr, "note: {}\n", sentence);
}

}  // namespace attune::slurm
