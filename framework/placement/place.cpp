#include "placement/place.hpp"

#include <ATen/Parallel.h>
#include <attune/error.hpp>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/host.hpp"
#include "placement/gpus.hpp"

namespace attune::placement {
namespace {

namespace fs = std::filesystem;

int number(const std::string& text) { return text.empty() ? 0 : std::atoi(text.c_str()); }
int asked_threads() { return number(environment_variable("OMP_NUM_THREADS")); }

bool is_mpirun() { return !environment_variable("OMPI_COMM_WORLD_SIZE").empty(); }
bool is_srun() { return !environment_variable("SLURM_STEP_NUM_TASKS").empty() && !is_mpirun(); }

/// Cores of this host that belong to the run: srun's step, mpirun's allocation, or what this
/// process may use.
int owned_cores(const Topology& topology, const Processors& mine) {
  const int own = static_cast<int>(topology.cores(mine).size());
  if (is_mpirun())
    return std::max(own, static_cast<int>(topology.cores(processors_of_launcher()).size()));
  // Slurm counts processors, or cores where a site has configured it so. Where it binds nothing, a
  // task sees cores of other jobs, too.
  const int given = is_srun() ? number(environment_variable("SLURM_CPUS_ON_NODE")) : 0;
  return given > 0 ? std::min(given, topology.all_cores()) : own;
}

void bind_to(const Processors& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int processor : processors) CPU_SET(processor, &set);
  // refused: the rank stays where it is, and `idle` says so
  ::sched_setaffinity(0, sizeof set, &set);
}

/// Names the binding that mpirun gave, in a rank that is started again.
constexpr const char* given_binding = "ATTUNE_GIVEN_BINDING";

/// What mpirun bound this rank to before Attune did; empty when Attune did not. The variable is not
/// for the programs that this one starts.
const Processors& binding_of_mpirun() {
  static const Processors given = [] {
    const auto text = environment_variable(given_binding);
    ::unsetenv(given_binding);
    const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    return json.is_array() ? json.get<Processors>() : Processors{};
  }();
  return given;
}

std::map<std::string, std::vector<const RankPlace*>> by_host(const std::vector<RankPlace>& ranks) {
  std::map<std::string, std::vector<const RankPlace*>> hosts;
  for (const auto& rank : ranks) hosts[rank.host].push_back(&rank);
  return hosts;
}

std::set<int> cores_of(const std::vector<const RankPlace*>& here) {
  std::set<int> together;
  for (const auto* rank : here) together.insert(rank->cores.begin(), rank->cores.end());
  return together;
}

int owned_cores(const std::vector<const RankPlace*>& here) {
  return (*std::max_element(here.begin(), here.end(),
                            [](const auto* a, const auto* b) { return a->owned < b->owned; }))
      ->owned;
}

int busy_cores(const std::vector<const RankPlace*>& here) {
  int threads = 0;
  for (const auto* rank : here) threads += rank->threads;
  return std::min({threads, static_cast<int>(cores_of(here).size()), owned_cores(here)});
}

std::string counted(std::size_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

}  // namespace

void start_on_share(char** arguments) {
  if (!binding_of_mpirun().empty() || !bound_unasked(environment_variable)) return;
  const auto topology = Topology::here();
  const auto mine = allowed_processors();
  const auto launcher = processors_of_launcher();
  const int ranks = number(environment_variable("OMPI_COMM_WORLD_SIZE"));
  const int here = number(environment_variable("OMPI_COMM_WORLD_LOCAL_SIZE"));
  const int rank = number(environment_variable("OMPI_COMM_WORLD_LOCAL_RANK"));
  if (rank >= here || !is_default_binding(topology, mine, launcher, ranks)) return;
  std::error_code unknown;
  const auto program = fs::read_symlink("/proc/self/exe", unknown);
  if (unknown) return;
  bind_to(topology.shares(launcher, here)[static_cast<std::size_t>(rank)]);
  ::setenv(given_binding, nlohmann::json(mine).dump().c_str(), 1);
  // returns only where it fails: then the rank goes on as it is
  ::execv(program.c_str(), arguments);
}

RankPlace RankPlace::here(const Topology& topology) {
  RankPlace place;
  place.host = host_name();
  place.processors = allowed_processors();
  place.online = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  place.gpu_names = visible_gpus(optional_variable, HostGpus::of());
  place.gpus = static_cast<int>(place.gpu_names.size());
  place.threads = asked_threads();
  place.node = environment_variable("SLURMD_NODENAME");
  if (place.node.empty()) place.node = place.host;
  place.cores = topology.cores(place.processors);
  place.owned = owned_cores(topology, place.processors);
  return place;
}

std::string RankPlace::text() const {
  return nlohmann::json{host, processors, online, gpus, threads, node, cores, owned, gpu_names}
      .dump();
}

RankPlace RankPlace::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json[0],
          json[1].get<Processors>(),
          json[2],
          json[3],
          json[4],
          json[5],
          json[6].get<std::vector<int>>(),
          json[7],
          json[8].get<std::vector<std::string>>()};
}

std::vector<int> fair_threads(const std::vector<RankPlace>& ranks) {
  std::map<std::pair<std::string, std::vector<int>>, int> sharers;
  for (const auto& rank : ranks) ++sharers[{rank.host, rank.cores}];
  std::vector<int> threads;
  for (const auto& rank : ranks) {
    const int cores = std::min(static_cast<int>(rank.cores.size()), rank.owned);
    threads.push_back(std::max(1, cores / sharers[{rank.host, rank.cores}]));
  }
  return threads;
}

std::vector<RankPlace> place_ranks(const Wishes& wishes, const Comm& comm) {
  const auto topology = Topology::here();
  if (wishes.keep_binding && !binding_of_mpirun().empty()) bind_to(binding_of_mpirun());
  std::vector<RankPlace> ranks;
  for (const auto& text : comm.gather(RankPlace::here(topology).text()))
    ranks.push_back(RankPlace::parse(text));
  auto fair = fair_threads(ranks);
  if (wishes.equal_threads)
    std::fill(fair.begin(), fair.end(), *std::min_element(fair.begin(), fair.end()));
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (wishes.threads > 0)
      ranks[i].threads = wishes.threads;
    else if (ranks[i].threads == 0)
      ranks[i].threads = fair[i];
  }
  at::set_num_threads(ranks[static_cast<std::size_t>(comm.rank())].threads);
  return ranks;
}

std::vector<std::string> remarks(const std::vector<RankPlace>& ranks, const Wishes& wishes) {
  auto sentences = crowded(ranks);
  // In a job the script has set the variable, and the job may own more.
  const bool is_wish = wishes.threads > 0 || (asked_threads() > 0 && slurm_job().empty());
  if (!is_wish)
    for (auto& sentence : idle(ranks)) sentences.push_back(std::move(sentence));
  return sentences;
}

std::string summary(const std::vector<RankPlace>& ranks) {
  const auto hosts = by_host(ranks);
  int busy = 0;
  int owned = 0;
  for (const auto& [host, here] : hosts) {
    busy += busy_cores(here);
    owned += owned_cores(here);
  }
  const auto by_threads = [](const auto& a, const auto& b) { return a.threads < b.threads; };
  const auto [least, most] = std::minmax_element(ranks.begin(), ranks.end(), by_threads);
  const auto threads = least->threads == most->threads
                           ? counted(static_cast<std::size_t>(most->threads), "thread")
                           : fmt::format("{} to {} threads", least->threads, most->threads);
  return fmt::format("{} x {} on {}, {} of {}", counted(ranks.size(), "rank"), threads,
                     counted(hosts.size(), "node"), busy,
                     counted(static_cast<std::size_t>(owned), "core"));
}

int gpus_together(const std::vector<const RankPlace*>& ranks) {
  std::set<std::string> names;
  int sum = 0;
  for (const auto* rank : ranks) {
    names.insert(rank->gpu_names.begin(), rank->gpu_names.end());
    sum += rank->gpus;
  }
  // A task that can reach no GPU but its own calls it 0, as the other tasks call theirs.
  const bool are_told_apart = !names.empty() && names != std::set<std::string>{"0"};
  return are_told_apart ? static_cast<int>(names.size()) : sum;
}

std::vector<std::string> crowded(const std::vector<RankPlace>& ranks) {
  std::vector<std::string> sentences;
  for (const auto& [host, here] : by_host(ranks)) {
    std::set<int> together;
    for (const auto* rank : here) together.insert(rank->processors.begin(), rank->processors.end());
    const auto& first = *here.front();
    const int count = static_cast<int>(here.size());
    const int processors = static_cast<int>(together.size());
    if (count > processors && processors < first.online)
      sentences.push_back(
          fmt::format("{}: {} ranks may use {} of {} processors: give srun --cpus-per-task, or "
                      "mpirun --bind-to none",
                      host, count, processors, first.online));
    else if (first.threads > static_cast<int>(first.processors.size()))
      sentences.push_back(
          fmt::format("{}: a rank computes with {} threads on {} processor(s): lower "
                      "parallel.threads or OMP_NUM_THREADS,"
                      " or give srun --cpus-per-task",
                      host, first.threads, first.processors.size()));
    if (const int gpus = gpus_together(here); gpus > 0 && count > gpus)
      sentences.push_back(fmt::format("{}: {} ranks share {}: start one rank per GPU", host, count,
                                      counted(static_cast<std::size_t>(gpus), "GPU")));
  }
  return sentences;
}

std::vector<std::string> idle(const std::vector<RankPlace>& ranks) {
  std::vector<std::string> sentences;
  for (const auto& [host, here] : by_host(ranks)) {
    const int busy = busy_cores(here);
    const int owned = owned_cores(here);
    const int each = owned / static_cast<int>(here.size());
    if (owned - busy < static_cast<int>(here.size())) continue;  // less than one more for each rank
    const bool are_bound = std::ssize(cores_of(here)) < owned;
    const auto mend =
        are_bound
            ? fmt::format("give srun --cpus-per-task={}, or remove mpirun's binding options", each)
            : fmt::format("set parallel.threads = {}, or OMP_NUM_THREADS", each);
    sentences.push_back(
        fmt::format("{}: {} of the run's {} cores are idle: {}", host, owned - busy, owned, mend));
  }
  return sentences;
}

}  // namespace attune::placement
