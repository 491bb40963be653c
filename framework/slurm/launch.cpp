#include "slurm/launch.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "core/host.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {
namespace {

using placement::RankPlace;

int number(const std::string& text) { return text.empty() ? 0 : std::atoi(text.c_str()); }

/// mpirun starts its ranks through daemons that are tasks of srun themselves: what srun said is not
/// about them.
bool by_mpirun(const Variables& variable) { return !variable("OMPI_COMM_WORLD_SIZE").empty(); }

/// A task of srun, and neither the batch script nor a shell in an allocation.
bool by_srun(const Variables& variable) {
  return !variable("SLURM_STEP_ID").empty() && !variable("SLURM_STEP_NUM_TASKS").empty() &&
         !by_mpirun(variable);
}

}  // namespace

std::string wrong_start(const Variables& variable) {
  if (!by_srun(variable)) return "";
  for (const char* pmi : {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD"})
    if (!variable(pmi).empty()) return "";
  return fmt::format(
      "srun started {} task{} without PMIx, so MPI cannot connect them and each would train alone: "
      "give srun --mpi=pmix (`srun --mpi=list` must list it), or start the ranks with mpirun",
      variable("SLURM_STEP_NUM_TASKS"), variable("SLURM_STEP_NUM_TASKS") == "1" ? "" : "s");
}

std::string wrong_size(const Variables& variable, int ranks) {
  const int tasks = number(variable("SLURM_STEP_NUM_TASKS"));
  if (!by_srun(variable) || tasks <= 1 || tasks == ranks) return "";
  return fmt::format(
      "srun started {} tasks, but MPI sees {} rank{}: Attune's MPI does not support srun's --mpi "
      "type; try --mpi=pmix, or start the ranks with mpirun",
      tasks, ranks, ranks == 1 ? "" : "s");
}

std::vector<std::string> differences(const config::AskedRanks& asked,
                                     const std::vector<RankPlace>& ranks) {
  std::map<std::string, std::vector<const RankPlace*>> nodes;
  for (const auto& rank : ranks) nodes[rank.node].push_back(&rank);
  std::vector<std::string> sentences;
  const auto many = [](int count, const char* what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  };
  // Of the first node where `found` is not as it should be; the others are counted.
  const auto tell = [&](const std::optional<std::int64_t>& wanted, const auto& found,
                        bool more_is_fine, const char* what, const char* per, const char* option,
                        const char* key) {
    std::string first;
    int count = 0;
    int others = -1;
    for (const auto& [node, here] : nodes) {
      const int number = found(here);
      if (!wanted || number == *wanted || (more_is_fine && number > *wanted)) continue;
      if (others++ < 0) {
        first = node;
        count = number;
      }
    }
    if (others >= 0)
      sentences.push_back(
          fmt::format("{}{}: {} for {}, but the run file asks for {}: give {}={} to srun or "
                      "sbatch, or correct slurm.{}",
                      first, others > 0 ? " and " + many(others, "other node") : "",
                      many(count, what), per, *wanted, option, *wanted, key));
  };
  if (asked.nodes && std::ssize(nodes) != *asked.nodes)
    sentences.push_back(
        fmt::format("the ranks run on {}, but the run file asks for {}: give --nodes={} to srun or "
                    "sbatch, or correct slurm.nodes",
                    many(static_cast<int>(nodes.size()), "node"), *asked.nodes, *asked.nodes));
  using Ranks = std::vector<const RankPlace*>;
  tell(
      asked.tasks_per_node, [](const Ranks& here) { return static_cast<int>(here.size()); }, false,
      "rank", "the node", "--ntasks-per-node", "tasks_per_node");
  tell(asked.gpus_per_node, placement::gpus_together, true, "visible GPU", "the node",
       "--gpus-per-node", "gpus_per_node");
  const auto fewest = [](const Ranks& here) {
    return static_cast<int>(
        (*std::min_element(here.begin(), here.end(), [](const auto* a, const auto* b) {
          return a->processors.size() < b->processors.size();
        }))->processors.size());
  };
  tell(asked.cpus_per_task, fewest, true, "processor", "a rank", "--cpus-per-task",
       "cpus_per_task");
  return sentences;
}

namespace {

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
  for (const char* count : {"SLURM_GPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_PER_NODE",
                            "SLURM_GPUS_PER_TASK", "SLURM_GPUS_PER_SOCKET"})
    if (const auto value = variable(count); !value.empty() && value != "0")
      return fmt::format("{}={}", count, value);
  return "";
}

void check_gpus(const config::RunConfig& run, bool uses_gpu, const Comm& comm) {
  const auto gpus = gpus_of_job(environment_variable);
  const bool leaves_idle = !gpus.empty() && !uses_gpu;
  const bool is_meant = run.parallel.device == "cpu";
  comm.agree([&] {
    if (leaves_idle && !is_meant)
      fail(
          "the job has GPUs ({}), but this LibTorch finds none, so the run would use the CPU: use "
          "a CUDA build of LibTorch, submit without GPUs, or set parallel.device = \"cpu\"",
          gpus);
  });
  if (leaves_idle && is_meant && comm.root())
    fmt::print(stderr,
               "note: the job has GPUs ({}), but parallel.device = \"cpu\" leaves them idle\n",
               gpus);
}

void check_asked(const config::RunConfig& run, const std::vector<RankPlace>& ranks,
                 const Comm& comm) {
  if (slurm_job().empty() || !comm.root()) return;
  for (const auto& sentence : differences(run.asked, ranks))
    fmt::print(stderr, "note: {}\n", sentence);
}

void check_launch(const Comm& comm) {
  comm.agree([&] {
    if (const auto wrong = wrong_size(environment_variable, comm.size()); !wrong.empty())
      fail("{}", wrong);
  });
  tell_launched(comm);
}

}  // namespace attune::slurm
