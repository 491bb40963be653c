// Where ranks compute, on machines that hwloc makes up and under launchers as their variables
// describe them.
#include "placement/place.hpp"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "core/host.hpp"
#include "placement/gpus.hpp"
#include "placement/neighbours.hpp"
#include "placement/rates.hpp"
#include "placement/waiting.hpp"

namespace attune::placement {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Processors from_to(int first, int last) {
  Processors numbers;
  for (int i = first; i <= last; ++i) numbers.push_back(i);
  return numbers;
}

Variables variables(std::map<std::string, std::string> set) {
  return [set = std::move(set)](const std::string& name) {
    return set.contains(name) ? set.at(name) : "";
  };
}

// ---- Rates

TEST(Rates, BelowFourFifthsOfTheMedianAreOutliers) {
  const std::vector<RankRate> ranks{{"n1", 100}, {"n1", 104}, {"n2", 55}, {"n2", 81}};
  EXPECT_EQ(median(ranks), 81);
  EXPECT_THAT(outliers("writes", ranks),
              ElementsAre("rank 2 on n2: writes at 68 % of the median rank"));
  EXPECT_THAT(outliers("writes", {{"n1", 3}}), IsEmpty());
  EXPECT_THAT(outliers("writes", {}), IsEmpty());
}

// ---- Shares

TEST(Topology, ThisMachineHasTheCoresThisProcessMayUse) {
  const auto here = Topology::here();
  EXPECT_GE(here.all_cores(), 1);
  EXPECT_THAT(here.cores(allowed_processors()), Not(IsEmpty()));
}

TEST(Topology, HardwareThreadsBelongToOneCore) {
  const auto two_threads = Topology::of("pack:1 core:4 pu:2");
  EXPECT_EQ(two_threads.all_cores(), 4);
  EXPECT_THAT(two_threads.cores({0, 1}), ElementsAre(0));
  EXPECT_THAT(two_threads.cores({1, 2, 7}), ElementsAre(0, 1, 3));
}

TEST(Topology, SharesAreWholeCoresOfOneSocket) {
  const auto two_sockets = Topology::of("pack:2 core:4 pu:2");
  EXPECT_THAT(two_sockets.shares(from_to(0, 15), 1), ElementsAre(from_to(0, 15)));
  EXPECT_THAT(two_sockets.shares(from_to(0, 15), 2), ElementsAre(from_to(0, 7), from_to(8, 15)));
  EXPECT_THAT(two_sockets.shares(from_to(0, 15), 3),
              ElementsAre(from_to(0, 3), from_to(4, 7), from_to(8, 15)));
  EXPECT_THAT(two_sockets.shares(from_to(0, 15), 8), SizeIs(8));
  EXPECT_THAT(two_sockets.shares(from_to(0, 15), 8)[7], ElementsAre(14, 15));
}

TEST(Topology, SharesAreOfWhatBelongsToTheRunAlone) {
  const auto two_sockets = Topology::of("pack:2 core:4 pu:1");
  EXPECT_THAT(two_sockets.shares({2, 3, 4, 5}, 2),
              ElementsAre(ElementsAre(2, 3), ElementsAre(4, 5)));
  EXPECT_THAT(two_sockets.shares({6}, 1), ElementsAre(ElementsAre(6)));
}

TEST(Topology, MoreRanksThanCoresShareThemAll) {
  const auto two_threads = Topology::of("pack:1 core:2 pu:2");
  EXPECT_THAT(two_threads.shares(from_to(0, 3), 3),
              ElementsAre(from_to(0, 3), from_to(0, 3), from_to(0, 3)));
}

// ---- Who bound the rank

TEST(Launcher, MpirunBindsUnaskedUnlessAnOptionSaysSo) {
  const std::pair<std::string, std::string> bound{"OMPI_MCA_orte_bound_at_launch", "1"};
  EXPECT_TRUE(bound_unasked(variables({bound})));
  EXPECT_TRUE(
      bound_unasked(variables({bound, {"OMPI_MCA_rmaps_base_mapping_policy", "ppr:1:node"}})));
  EXPECT_FALSE(bound_unasked(variables({})))
      << "--bind-to none, --oversubscribe, srun, or no launcher";
  for (const auto& asked : std::vector<std::pair<std::string, std::string>>{
           {"hwloc_base_binding_policy", "core"},
           {"rmaps_base_mapping_policy", "slot:PE=4"},
           {"rmaps_base_mapping_policy", "ppr:2:socket"},
           {"rmaps_base_cpus_per_rank", "2"},
           {"orte_rankfile", "ranks"},
           {"hwloc_base_cpu_set", "0-3"},
           {"hwloc_base_cpu_list", "0,1"}})
    EXPECT_FALSE(bound_unasked(variables({bound, {"OMPI_MCA_" + asked.first, asked.second}})))
        << asked.first;
}

TEST(Launcher, WhatAWrapperNarrowedIsNotMpirunsDefault) {
  const auto two_sockets = Topology::of("pack:2 core:4 pu:2");
  const auto all = from_to(0, 15);
  EXPECT_TRUE(is_default_binding(two_sockets, {0, 1}, all, 2)) << "a core";
  EXPECT_FALSE(is_default_binding(two_sockets, from_to(0, 7), all, 2)) << "numactl --cpunodebind=0";
  EXPECT_TRUE(is_default_binding(two_sockets, from_to(8, 15), all, 4)) << "a socket";
  EXPECT_FALSE(is_default_binding(two_sockets, {8, 9}, all, 4)) << "taskset";
  EXPECT_TRUE(is_default_binding(two_sockets, from_to(4, 7), from_to(4, 11), 3))
      << "what the job has of a socket";
  EXPECT_FALSE(is_default_binding(two_sockets, {0, 1}, {}, 2)) << "no mpirun above";
}

// ---- Threads and words

RankPlace rank(const std::string& host, std::vector<int> cores, int owned, int threads = 0) {
  return {host, cores, 8, 0, threads, host, cores, owned};
}

TEST(Threads, ARankHasItsCoresAndSharesThoseOfOthers) {
  EXPECT_THAT(fair_threads({rank("a", from_to(0, 7), 8)}), ElementsAre(8));
  EXPECT_THAT(fair_threads({rank("a", from_to(0, 3), 8), rank("a", from_to(4, 7), 8)}),
              ElementsAre(4, 4));
  EXPECT_THAT(fair_threads({rank("a", from_to(0, 7), 8), rank("a", from_to(0, 7), 8),
                            rank("b", from_to(0, 7), 8)}),
              ElementsAre(4, 4, 8))
      << "--bind-to none";
  EXPECT_THAT(fair_threads({rank("a", {0}, 1), rank("a", {0}, 1)}), ElementsAre(1, 1));
  EXPECT_THAT(fair_threads({rank("a", from_to(0, 7), 2)}), ElementsAre(2))
      << "Slurm gave two and bound nothing";
}

TEST(Threads, TheFirstLineSaysWhatARunUses) {
  EXPECT_EQ(summary({rank("a", from_to(0, 31), 64, 32), rank("a", from_to(32, 63), 64, 32)}),
            "2 ranks x 32 threads on 1 node, 64 of 64 cores");
  EXPECT_EQ(summary({rank("a", {0}, 1, 1)}), "1 rank x 1 thread on 1 node, 1 of 1 core");
  EXPECT_EQ(summary({rank("a", {0, 1, 2}, 3, 3), rank("b", {0}, 3, 1)}),
            "2 ranks x 1 to 3 threads on 2 nodes, 4 of 6 cores");
}

TEST(Threads, CoresOfOthersAreNotTheRuns) {
  EXPECT_EQ(summary({rank("a", from_to(0, 7), 1, 1)}), "1 rank x 1 thread on 1 node, 1 of 1 core");
  EXPECT_EQ(summary({rank("a", {0}, 1, 1), rank("a", {1}, 1, 1)}),
            "2 ranks x 1 thread on 1 node, 1 of 1 core");
  EXPECT_THAT(idle({rank("a", from_to(0, 7), 1, 1)}), IsEmpty());
}

TEST(Threads, IdleCoresAreTold) {
  EXPECT_THAT(idle({rank("a", from_to(0, 3), 8, 4), rank("a", from_to(4, 7), 8, 4)}), IsEmpty());
  EXPECT_THAT(
      idle({rank("a", {0}, 8, 1), rank("a", {1}, 8, 1)}),
      ElementsAre(HasSubstr("a: 6 of the run's 8 cores are idle: give srun --cpus-per-task=4")));
  EXPECT_THAT(idle({rank("a", from_to(0, 7), 8, 2)}),
              ElementsAre(HasSubstr("set parallel.threads = 8")));
  EXPECT_THAT(idle({rank("a", from_to(0, 2), 3, 1), rank("a", from_to(0, 2), 3, 1)}), IsEmpty())
      << "a third that two cannot share";
}

TEST(Threads, WhoChoosesThemIsNotTold) {
  const std::vector<RankPlace> one{rank("a", from_to(0, 7), 8, 2)};
  EXPECT_THAT(remarks(one, {.threads = 2}), IsEmpty());
}

TEST(Threads, CrowdedRanksAreExplained) {
  EXPECT_THAT(crowded({{"a", {0}, 8, 0, 1}, {"a", {0}, 8, 0, 1}}),
              ElementsAre(HasSubstr("a: 2 ranks may use 1 of 8 processors")));
  EXPECT_THAT(crowded({{"a", {0}, 8, 0, 4}}),
              ElementsAre(HasSubstr("computes with 4 threads on 1 processor")));
  EXPECT_THAT(crowded({{"a", {0, 1}, 2, 0, 1}, {"a", {0, 1}, 2, 0, 1}, {"a", {0, 1}, 2, 0, 1}}),
              IsEmpty())
      << "a laptop that is asked for more than it has";
  EXPECT_THAT(crowded({{"a", {0, 1}, 4, 2, 2}, {"a", {2, 3}, 4, 2, 2}}), IsEmpty());
}

// ---- GPUs

OptionalVariables set(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const std::string& name) {
    return values.contains(name) ? std::optional(values.at(name)) : std::nullopt;
  };
}

/// What a process sees on a host with four GPUs of NVIDIA.
std::vector<std::string> cuda(const std::string& list) {
  return visible_gpus(set({{"CUDA_VISIBLE_DEVICES", list}}), {{"a", "b", "c", "d"}, {}});
}

/// The same on a host with four GPUs of AMD.
std::vector<std::string> rocm(std::map<std::string, std::string> values) {
  return visible_gpus(set(std::move(values)), {{}, {"a", "b", "c", "d"}});
}

TEST(Gpus, WithoutAVariableAllOfTheHostAreVisible) {
  EXPECT_THAT(visible_gpus(set({}), {}), IsEmpty());
  EXPECT_THAT(visible_gpus(set({}), {{"a", "b"}, {}}), ElementsAre("a", "b"));
  EXPECT_THAT(visible_gpus(set({}), {{}, {"a", "b"}}), ElementsAre("a", "b"));
}

TEST(Gpus, CudasListHasIndicesUuidsAndParts) {
  EXPECT_THAT(cuda("2,0"), ElementsAre("2", "0"));
  EXPECT_THAT(cuda(" 1, 3 "), ElementsAre("1", "3"));
  EXPECT_THAT(cuda("GPU-8932f937,GPU-d5a1"), ElementsAre("GPU-8932f937", "GPU-d5a1"));
  EXPECT_THAT(cuda("MIG-0a,MIG-GPU-8932f937/1/0"), ElementsAre("MIG-0a", "MIG-GPU-8932f937/1/0"));
}

TEST(Gpus, CudasListEndsAtItsFirstInvalidEntry) {
  EXPECT_THAT(cuda("0,1,-1,2"), ElementsAre("0", "1"));
  EXPECT_THAT(cuda("0,4,1"), ElementsAre("0")) << "the host has four";
  EXPECT_THAT(cuda("1,,2"), ElementsAre("1"));
  for (const char* none : {"", "-1", "NoDevFiles", "none", ",0", "0,0"})
    EXPECT_THAT(cuda(none), IsEmpty()) << none;
}

TEST(Gpus, IndicesAreTakenAsTheyAreWhereTheHostNamesNoGpu) {
  EXPECT_THAT(visible_gpus(set({{"CUDA_VISIBLE_DEVICES", "0,5"}}), {}), ElementsAre("0", "5"));
  EXPECT_THAT(visible_gpus(set({{"ROCR_VISIBLE_DEVICES", "0,5"}}), {}), IsEmpty())
      << "AMD's driver is not there";
}

TEST(Gpus, AnIndexOfTheOnlyGpuIsThatGpu) {
  EXPECT_THAT(visible_gpus(set({{"CUDA_VISIBLE_DEVICES", "0"}}), {{"a"}, {}}), ElementsAre("a"));
}

TEST(Gpus, HipChoosesAmongThoseThatRocrLeaves) {
  EXPECT_THAT(rocm({{"ROCR_VISIBLE_DEVICES", "3,1"}}), ElementsAre("d", "b"));
  EXPECT_THAT(rocm({{"HIP_VISIBLE_DEVICES", "1"}}), ElementsAre("b"));
  EXPECT_THAT(rocm({{"ROCR_VISIBLE_DEVICES", "3,1"}, {"HIP_VISIBLE_DEVICES", "1"}}),
              ElementsAre("b"));
  EXPECT_THAT(rocm({{"ROCR_VISIBLE_DEVICES", "3,1"}, {"HIP_VISIBLE_DEVICES", "3"}}), IsEmpty())
      << "two are left";
  EXPECT_THAT(rocm({{"ROCR_VISIBLE_DEVICES", "0,GPU-DEADBEEF"}, {"HIP_VISIBLE_DEVICES", "1"}}),
              ElementsAre("GPU-DEADBEEF"));
  EXPECT_THAT(rocm({{"ROCR_VISIBLE_DEVICES", "2,3"}, {"CUDA_VISIBLE_DEVICES", "0"}}),
              ElementsAre("c"))
      << "HIP reads CUDA's variable";
  EXPECT_THAT(rocm({{"HIP_VISIBLE_DEVICES", "1"}, {"CUDA_VISIBLE_DEVICES", "0"}}),
              ElementsAre("b"));
  EXPECT_THAT(rocm({{"ROCR_VISIBLE_DEVICES", ""}}), IsEmpty());
  EXPECT_THAT(rocm({{"HIP_VISIBLE_DEVICES", "-1"}}), IsEmpty());
  EXPECT_THAT(rocm({{"HIP_VISIBLE_DEVICES", ""}}), SizeIs(4)) << "for HIP as if it were not set";
}

TEST(Gpus, VariablesOfTheOtherMakerAreIgnored) {
  EXPECT_THAT(visible_gpus(set({{"CUDA_VISIBLE_DEVICES", "1"}, {"ROCR_VISIBLE_DEVICES", "0"}}),
                           {{"a", "b"}, {"c"}}),
              ElementsAre("1"));
}

TEST(Gpus, TheKernelNamesThoseOfTheHost) {
  const auto root = std::filesystem::path(::testing::TempDir()) / "attune-gpus";
  std::filesystem::remove_all(root);
  for (const char* address : {"0000:81:00.0", "0000:01:00.0"})
    std::filesystem::create_directories(root / "proc/driver/nvidia/gpus" / address);
  const auto nodes = root / "sys/class/kfd/kfd/topology/nodes";
  const auto node = [&](const char* number, const std::string& properties) {
    std::filesystem::create_directories(nodes / number);
    std::ofstream(nodes / number / "properties") << properties;
  };
  node("0", "cpu_cores_count 64\nsimd_count 0\nmem_banks_count 1\n");
  node("10", "cpu_cores_count 0\nsimd_count 440\nunique_id 16233396452519219861\n");
  node("2", "cpu_cores_count 0\nsimd_count 440\n");
  node("3", "");  // forbidden by the cgroup
  const auto host = HostGpus::of(root);
  EXPECT_THAT(host.nvidia, ElementsAre("0000:01:00.0", "0000:81:00.0"));
  EXPECT_THAT(host.amd, ElementsAre("node 2", "node 10"));
  std::filesystem::remove_all(root);
  EXPECT_THAT(HostGpus::of(root).nvidia, IsEmpty());
  EXPECT_THAT(HostGpus::of(root).amd, IsEmpty());
}

/// Ranks of one host that see these GPUs.
std::vector<RankPlace> seeing(const std::vector<std::vector<std::string>>& gpus) {
  std::vector<RankPlace> ranks;
  for (const auto& names : gpus) {
    const int cpu = static_cast<int>(ranks.size());
    ranks.push_back({"a", {cpu}, 8, static_cast<int>(names.size()), 1, "a", {cpu}, 8, names});
  }
  return ranks;
}

int together(const std::vector<std::vector<std::string>>& gpus) {
  const auto ranks = seeing(gpus);
  std::vector<const RankPlace*> here;
  for (const auto& rank : ranks) here.push_back(&rank);
  return gpus_together(here);
}

TEST(Gpus, ThoseOfAHostAreCountedOverItsRanks) {
  EXPECT_EQ(together({{}, {}}), 0);
  EXPECT_EQ(together({{"0", "1", "2", "3"}, {"0", "1", "2", "3"}}), 4) << "all see all";
  EXPECT_EQ(together({{"0"}, {"1"}, {"2"}, {"3"}}), 4) << "each sees its own";
  EXPECT_EQ(together({{"0", "1"}, {"1", "2"}}), 3);
  EXPECT_EQ(together({{"GPU-a"}, {"GPU-b"}}), 2);
  EXPECT_EQ(together({{"MIG-a"}, {"MIG-a"}}), 1);
  EXPECT_EQ(together({{"0"}, {"0"}, {"0"}, {"0"}}), 4) << "may be its own, renumbered by a cgroup";
  EXPECT_EQ(together({{"1"}, {"1"}}), 1) << "a task that reaches its own alone calls it 0";
}

TEST(Gpus, SharedOnesAreToldAsFarAsTheirNamesTell) {
  const auto share = [](const char* words) { return ElementsAre(HasSubstr(words)); };
  EXPECT_THAT(crowded(seeing({{"0"}, {"1"}, {"2"}, {"3"}})), IsEmpty());
  EXPECT_THAT(crowded(seeing({{"0"}, {"0"}, {"0"}, {"0"}})), IsEmpty());
  EXPECT_THAT(crowded(seeing({{"GPU-a"}, {"GPU-b"}})), IsEmpty());
  EXPECT_THAT(crowded(seeing({{"0", "1"}, {"0", "1"}})), IsEmpty());
  EXPECT_THAT(crowded(seeing({{"0", "1"}, {"0", "1"}, {"0", "1"}})),
              share("a: 3 ranks share 2 GPUs: start one rank per GPU"));
  EXPECT_THAT(crowded(seeing({{"0"}, {"1"}, {"0"}, {"1"}})), share("4 ranks share 2 GPUs"));
  EXPECT_THAT(crowded(seeing({{"GPU-a"}, {"GPU-a"}})), share("2 ranks share 1 GPU:"));
  EXPECT_THAT(crowded(seeing({{"0000:01:00.0"}, {"0000:01:00.0"}})), share("share 1 GPU:"));
}

// ---- Neighbours

/// More threads than this machine has processors, none of which rests.
class Crowd {
 public:
  Crowd() {
    const auto count = 3 * std::thread::hardware_concurrency();
    for (unsigned i = 0; i < count; ++i)
      threads_.emplace_back([this] {
        while (!is_over_) {
        }
      });
  }
  ~Crowd() {
    is_over_ = true;
    for (auto& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> is_over_ = false;
  std::vector<std::thread> threads_;
};

std::ptrdiff_t threads_here() {
  using Entries = std::filesystem::directory_iterator;
  return std::distance(Entries("/proc/self/task"), Entries());
}

/// Threads that have been joined leave /proc a moment later.
bool soon(const std::function<bool()>& holds,
          std::chrono::seconds most = std::chrono::seconds(30)) {
  const auto end = std::chrono::steady_clock::now() + most;
  while (!holds() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return holds();
}

TEST(Waiting, ContentionIsTheTimeThatThreadsWaitForAProcessor) {
  Contention contention;
  const Crowd crowd;
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const double share = contention.share();
  EXPECT_GT(share, 0.3) << "two of three wait";
  EXPECT_LT(share, 1);
}

TEST(Waiting, PatienceComesSoonAndGoesLate) {
  Patience patience;
  EXPECT_FALSE(patience.after(0.9));
  EXPECT_FALSE(patience.after(0.1)) << "a moment is none";
  EXPECT_FALSE(patience.after(0.9));
  EXPECT_TRUE(patience.after(0.2));
  for (int i = 0; i < 19; ++i) EXPECT_TRUE(patience.after(0.01));
  EXPECT_TRUE(patience.after(0.1)) << "not calm yet";
  for (int i = 0; i < 19; ++i) EXPECT_TRUE(patience.after(0));
  EXPECT_FALSE(patience.after(0));
}

TEST(Waiting, ASleepingTeamIsThereUntilItEnds) {
  const auto before = threads_here();
  {
    const SleepingTeam team(3);
    EXPECT_EQ(threads_here(), before + 3);
  }
  EXPECT_TRUE(soon([&] { return threads_here() == before; }));
}

TEST(Waiting, IsPatientInACrowdAndSaysSoOnce) {
  ::unsetenv("OMP_WAIT_POLICY");
  std::atomic<int> told = 0;
  const auto before = threads_here();
  {
    const Waiting waiting(2, [&](double share) {
      EXPECT_GT(share, 0.15);
      ++told;
    });
    const Crowd crowd;
    EXPECT_TRUE(soon([&] { return told == 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  }
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(soon([&] { return threads_here() == before; })) << "it leaves nothing behind";
}

TEST(Waiting, LeavesAChoiceAlone) {
  ::setenv("OMP_WAIT_POLICY", "active", 1);
  const auto before = threads_here();
  const Waiting chosen(2);
  const Waiting alone(1);
  EXPECT_EQ(threads_here(), before);
  ::unsetenv("OMP_WAIT_POLICY");
}

TEST(Neighbours, AreProcessesThatCompute) {
  const auto busy = ::fork();
  if (busy == 0)
    for (;;) {
    }
  const auto found = neighbours(std::chrono::milliseconds(600));
  ::kill(busy, SIGKILL);
  ::waitpid(busy, nullptr, 0);
  const auto is_it = [&](const Neighbour& one) {
    return one.process == busy && one.cores > 0.1 && one.cores < 1.2 &&
           one.name.find("placement") != std::string::npos;
  };
  EXPECT_TRUE(std::ranges::any_of(found.processes, is_it));
  EXPECT_TRUE(std::ranges::none_of(found.processes,
                                   [](const Neighbour& one) { return one.process == ::getpid(); }));
  EXPECT_TRUE(found.stolen >= 0 && found.stolen <= 1);
}

TEST(Places, TravelAsText) {
  const RankPlace place{"a", {0, 2}, 8, 1, 2, "n1", {0, 1}, 4, {"GPU-a"}};
  const auto back = RankPlace::parse(place.text());
  EXPECT_EQ(back.text(), place.text());
  EXPECT_EQ(back.owned, 4);
  EXPECT_THAT(back.gpu_names, ElementsAre("GPU-a"));
}

}  // namespace
}  // namespace attune::placement
