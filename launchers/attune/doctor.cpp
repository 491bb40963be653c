// attune doctor: whether these nodes are fit to train on. One row a node; what is odd among its
// peers is marked.
#include <H5Epublic.h>
#include <H5Fpublic.h>
#include <H5Ppublic.h>
#include <H5public.h>
#include <fmt/chrono.h>
#include <sys/vfs.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "command.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "core/process.hpp"
#include "core/stopwatch.hpp"
#include "device/device.hpp"
#include "gpu_links.hpp"
#include "option_table.hpp"
#include "parallel/mpi.hpp"
#include "parallel/watchdog.hpp"
#include "placement/neighbours.hpp"
#include "plan/measure.hpp"
#include "prepare/source.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"
#include "slurm/environment.hpp"
#include "slurm/launch.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

// ---- What a node is

double gibibytes_of(const std::string& key) {
  return static_cast<double>(bytes_in_line("/proc/meminfo", key)) / (1 << 30);
}

std::string file_system_of(const fs::path& folder) {
  struct statfs status{};
  if (::statfs(folder.c_str(), &status) != 0) return "?";
  static const std::map<unsigned long, const char*> names{
      {0xEF53, "ext4"},       {0x58465342, "xfs"},   {0x6969, "nfs"},       {0x0BD00BD0, "lustre"},
      {0x47504653, "gpfs"},   {0x01021994, "tmpfs"}, {0x9123683E, "btrfs"}, {0x794C7630, "overlay"},
      {0x19830326, "beegfs"}, {0x00C36400, "ceph"},  {0x65735546, "fuse"},  {0x2FC12FC1, "zfs"}};
  const auto found = names.find(static_cast<unsigned long>(status.f_type));
  return found == names.end() ? fmt::format("{:#x}", static_cast<unsigned long>(status.f_type))
                              : found->second;
}

double free_bytes(const fs::path& folder) {
  std::error_code missing;
  const auto space = fs::space(folder, missing);
  return missing ? -1 : static_cast<double>(space.available);
}

/// "ok", or what HDF5 cannot do in that folder: make a file, lock it, read it back.
std::string hdf5_in(const fs::path& folder) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // its own report is a page
  const auto file = folder / fmt::format(".attune-doctor-{}-{}.h5", host_name(), ::getpid());
  const auto made = H5Fcreate(file.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  if (made < 0) return ::access(folder.c_str(), W_OK) == 0 ? "no locks" : "no write";
  H5Fclose(made);
  const auto read = H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (read >= 0) H5Fclose(read);
  fs::remove(file);
  return read < 0 ? "no locks" : "ok";
}

struct Node {
  std::string host;
  // processors: of the fewest that one of its ranks may use
  int ranks = 0;
  int online = 0;
  int processors = 0;
  int gpus = 0;
  int torch_gpus = 0;
  // GiB
  double memory = 0;
  double memory_free = 0;
  double scratch_free = 0;  // bytes
  std::string output_system;
  std::string hdf5;
  std::string versions;
  std::string transport;
  // seconds ahead of the first node; seconds, bytes per second to it
  double clock = 0;
  double latency = -1;
  double bandwidth = -1;
  // seconds until a file of the first node is seen; negative: never
  double seen_after = 0;
  int process = 0;
  placement::Neighbours neighbours{};
};

nlohmann::json to_json(const placement::Neighbours& neighbours) {
  nlohmann::json processes = nlohmann::json::array();
  for (const auto& one : neighbours.processes)
    processes.push_back({one.process, one.name, one.cores});
  return {processes, neighbours.stolen};
}

placement::Neighbours neighbours_from(const nlohmann::json& json) {
  placement::Neighbours neighbours{{}, json[1]};
  for (const auto& one : json[0]) neighbours.processes.push_back({one[0], one[1], one[2]});
  return neighbours;
}

nlohmann::json to_json(const Node& n) {
  return {n.host,
          n.ranks,
          n.online,
          n.processors,
          n.gpus,
          n.torch_gpus,
          n.memory,
          n.memory_free,
          n.scratch_free,
          n.output_system,
          n.hdf5,
          n.versions,
          n.transport,
          n.clock,
          n.latency,
          n.bandwidth,
          n.seen_after,
          n.process,
          to_json(n.neighbours)};
}

Node from_json(const nlohmann::json& j) {
  return {j[0],
          j[1],
          j[2],
          j[3],
          j[4],
          j[5],
          j[6],
          j[7],
          j[8],
          j[9],
          j[10],
          j[11],
          j[12],
          j[13],
          j[14],
          j[15],
          j[16],
          j[17],
          neighbours_from(j[18])};
}

/// What Open MPI moves messages with, "ob1: self, tcp, vader": its PML, and under ob1 the BTLs. It
/// closes the components that it did not choose, and MPI_T no longer has a category for them. Which
/// BTL carries a message, ob1 decides for every pair of ranks.
std::string transport() {
  int provided = 0;
  int count = 0;
  if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS) return "?";
  std::string pml = "?";
  std::vector<std::string> btls;
  MPI_T_category_get_num(&count);
  for (int i = 0; i < count; ++i) {
    std::array<char, 256> buffer{};
    int length = buffer.size();
    int controls = 0;
    int meters = 0;
    int categories = 0;
    if (MPI_T_category_get_info(i, buffer.data(), &length, nullptr, nullptr, &controls, &meters,
                                &categories) != MPI_SUCCESS)
      continue;
    const std::string name = buffer.data();
    const std::string component = name.substr(name.rfind('_') + 1);
    if (component == "base") continue;
    if (name.starts_with("ompi_pml_")) pml = component;
    if (name.starts_with("opal_btl_")) btls.push_back(component);
  }
  MPI_T_finalize();
  std::sort(btls.begin(), btls.end());
  return pml == "ob1" ? pml + ": " + joined(btls) : pml;
}

std::string versions() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("Attune {}, LibTorch {} for {}, {}, HDF5 {}.{}.{}, {} Parquet", ATTUNE_VERSION,
                     TORCH_VERSION, device::build(), parallel::mpi_version(), major, minor, release,
                     reads_parquet() ? "with" : "without");
}

Node describe_node(const placement::RankPlace& place, const fs::path& output,
                   const fs::path& scratch) {
  Node node;
  node.host = place.host;
  node.online = place.online;
  node.processors = static_cast<int>(place.processors.size());
  node.gpus = place.gpus;
  node.torch_gpus = device::count();
  node.memory = gibibytes_of("MemTotal");
  node.memory_free = gibibytes_of("MemAvailable");
  node.scratch_free = free_bytes(scratch);
  node.output_system = file_system_of(output);
  node.hdf5 = hdf5_in(output);
  node.versions = versions();
  node.transport = transport();
  node.process = ::getpid();
  return node;
}

// ---- Between nodes; pairs of ranks, one after another

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Seconds of one exchange of so many bytes there and back, at best.
double round_trip(MPI_Comm comm, int other, bool first, std::vector<char>& bytes, int count,
                  int times) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    const Stopwatch watch;
    if (first) MPI_Send(bytes.data(), count, MPI_BYTE, other, 1, comm);
    MPI_Recv(bytes.data(), count, MPI_BYTE, other, 1, comm, MPI_STATUS_IGNORE);
    if (!first) MPI_Send(bytes.data(), count, MPI_BYTE, other, 1, comm);
    best = std::min(best, watch.seconds());
  }
  return best;
}

struct Link {
  double clock;
  double latency;
  double bandwidth;
};

/// Between rank 0 and another; what rank 0 finds. Clocks as in NTP: the other's time against the
/// middle of the quickest question and answer.
Link measure_link(MPI_Comm comm, int other, bool first) {
  std::vector<char> bytes(4 << 20);
  round_trip(comm, other, first, bytes, 1, 20);
  const double small = round_trip(comm, other, first, bytes, 1, 200);
  const double large = round_trip(comm, other, first, bytes, static_cast<int>(bytes.size()), 8);
  double quickest = 1e9;
  double ahead = 0;
  for (int i = 0; i < 20; ++i) {
    double sent = wall_clock();
    double theirs = 0;
    if (first) {
      MPI_Send(&sent, 1, MPI_DOUBLE, other, 2, comm);
      MPI_Recv(&theirs, 1, MPI_DOUBLE, other, 2, comm, MPI_STATUS_IGNORE);
      const double now = wall_clock();
      if (now - sent < quickest) {
        quickest = now - sent;
        ahead = theirs - (sent + now) / 2;
      }
    } else {
      MPI_Recv(&sent, 1, MPI_DOUBLE, other, 2, comm, MPI_STATUS_IGNORE);
      theirs = wall_clock();
      MPI_Send(&theirs, 1, MPI_DOUBLE, other, 2, comm);
    }
  }
  return {ahead, small / 2, 2 * static_cast<double>(bytes.size()) / large};
}

/// Ranks that stand for their nodes, in order; with one node alone a second rank of it, for the
/// memory between them.
std::vector<int> ends_of_links(const std::vector<Node>& ranks) {
  std::vector<int> ends;
  for (int i = 1; i < static_cast<int>(ranks.size()); ++i)
    if (std::none_of(ranks.begin(), ranks.begin() + i, [&](const Node& other) {
          return other.host == ranks[static_cast<std::size_t>(i)].host;
        }))
      ends.push_back(i);
  if (ends.empty() && ranks.size() > 1) ends.push_back(1);
  return ends;
}

void measure_links(const Comm& comm, std::vector<Node>& ranks) {
  for (const int end : ends_of_links(ranks)) {
    parallel::report_phase("links between nodes", end);
    if (comm.rank() == 0) {
      const auto link = measure_link(mpi_handle(comm), end, true);
      auto& node = ranks[static_cast<std::size_t>(end)];
      node.clock = link.clock;
      node.latency = link.latency;
      node.bandwidth = link.bandwidth;
    } else if (comm.rank() == end) {
      measure_link(mpi_handle(comm), 0, false);
    }
  }
}

/// How long a file of rank 0 takes to be seen here: a run's ranks read what one of them wrote.
double seconds_until_seen(const Comm& comm, const fs::path& output) {
  const auto name = comm.broadcast(comm.root() ? fmt::format(".attune-doctor-{}", ::getpid()) : "");
  if (comm.root()) std::ofstream(output / name) << "seen\n";
  comm.barrier();
  const Stopwatch watch;
  while (!fs::exists(output / name) && watch.seconds() < 5)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double seconds = fs::exists(output / name) ? watch.seconds() : -1;
  comm.barrier();
  std::error_code ignored;
  if (comm.root()) fs::remove(output / name, ignored);
  return seconds;
}

// ---- The table

std::vector<Node> nodes_of(const std::vector<Node>& ranks) {
  std::vector<Node> nodes;
  for (const auto& rank : ranks) {
    auto node = std::find_if(nodes.begin(), nodes.end(),
                             [&](const Node& other) { return other.host == rank.host; });
    if (node == nodes.end()) node = nodes.insert(nodes.end(), rank);
    ++node->ranks;
    node->processors = std::min(node->processors, rank.processors);
    if (rank.bandwidth > 0) {
      node->latency = rank.latency;
      node->bandwidth = rank.bandwidth;
    }
    if (rank.hdf5 != "ok") node->hdf5 = rank.hdf5;
  }
  return nodes;
}

/// A rank may see its own GPU alone.
int gpus_of(const std::string& host, const std::vector<placement::RankPlace>& places) {
  std::vector<const placement::RankPlace*> here;
  for (const auto& place : places)
    if (place.host == host) here.push_back(&place);
  return placement::gpus_together(here);
}

Row row_of(const Node& n) {
  return {n.host,
          std::to_string(n.ranks),
          n.processors == n.online ? std::to_string(n.online)
                                   : fmt::format("{} of {}", n.processors, n.online),
          fmt::format("{:.0f} GiB", n.memory),
          fmt::format("{:.0f} GiB", n.memory_free),
          n.gpus == n.torch_gpus ? std::to_string(n.gpus)
                                 : fmt::format("{}, LibTorch {}", n.gpus, n.torch_gpus),
          n.scratch_free < 0 ? "none" : human_bytes(n.scratch_free),
          n.output_system,
          n.hdf5,
          n.seen_after < 0 ? "never" : fmt::format("{:.0f} ms", 1e3 * n.seen_after),
          std::abs(n.clock) < 1e-3 ? "0 ms" : fmt::format("{:+.0f} ms", 1e3 * n.clock),
          n.transport,
          n.latency < 0 ? "-" : fmt::format("{:.1f} us", 1e6 * n.latency),
          n.bandwidth < 0 ? "-" : fmt::format("{:.1f} GB/s", n.bandwidth / 1e9)};
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// A star to cells that differ from most of the others of their column, or are bad in themselves.
std::size_t mark(std::vector<Row>& rows, const std::vector<Node>& nodes) {
  std::size_t marks = 0;
  const auto star = [&](std::size_t node, std::size_t column) {
    rows[node + 1][column] += " *";
    ++marks;
  };
  // ranks, processors, memory, GPUs, file system, transport
  for (const std::size_t column : {1, 2, 3, 5, 7, 11}) {
    std::map<std::string, std::size_t> counts;
    for (std::size_t i = 0; i < nodes.size(); ++i) ++counts[rows[i + 1][column]];
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (2 * counts[rows[i + 1][column]] < nodes.size()) star(i, column);
  }
  std::vector<double> latencies;
  std::vector<double> bandwidths;
  for (const auto& node : nodes) {
    if (node.bandwidth > 0) {
      latencies.push_back(node.latency);
      bandwidths.push_back(node.bandwidth);
    }
  }
  const double usual_latency = median(latencies);
  const double usual_bandwidth = median(bandwidths);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].hdf5 != "ok") star(i, 8);
    if (nodes[i].seen_after < 0 || nodes[i].seen_after > 1) star(i, 9);
    if (std::abs(nodes[i].clock) > 0.1) star(i, 10);
    if (nodes[i].latency > 3 * usual_latency) star(i, 12);
    if (nodes[i].bandwidth > 0 && nodes[i].bandwidth < usual_bandwidth / 2) star(i, 13);
  }
  return marks;
}

// ---- Words

std::string started_by() {
  using slurm::environment_variable;
  const auto job = environment_variable("SLURM_JOB_ID");
  if (!environment_variable("SLURM_STEP_ID").empty() &&
      !environment_variable("PMIX_SERVER_URI2").empty() &&
      environment_variable("PMIX_SERVER_URI2").find("prte") == std::string::npos &&
      environment_variable("OMPI_MCA_ess").empty())
    return fmt::format("srun, job {}", job);
  if (!environment_variable("OMPI_MCA_ess_base_jobid").empty() ||
      !environment_variable("OMPI_MCA_orte_launch").empty())
    return job.empty() ? "mpirun" : fmt::format("mpirun, in job {}", job);
  return job.empty() ? "by itself" : fmt::format("by itself, in job {}", job);
}

/// Slurm 22.05 on fewer nodes than TreeWidth: the barrier that ends MPI_Init does not wait.
std::string fence_advice() {
  const auto said = slurm::run_slurm({"scontrol", "show", "config"});
  if (said.code != 0 || said.out.find("SLURM_VERSION") == std::string::npos) return "";
  const bool is_old = said.out.find("= 22.05.") != std::string::npos;
  const bool ring = said.out.find("PMIxCollFence           = ring") != std::string::npos ||
                    slurm::environment_variable("SLURM_PMIX_FENCE") == "ring";
  if (!is_old || ring) return "";
  return "Slurm 22.05 may crash ranks in MPI_Init under srun on few nodes: export "
         "SLURM_PMIX_FENCE=ring in the job script (environment of the site file), or "
         "PMIxCollFence=ring in mpi.conf";
}

/// Names the processes that keep this node's cores busy beside the ranks of this program.
std::string busy_neighbours(const Node& node, const std::vector<Node>& ranks) {
  std::vector<std::string> names;
  double cores = 0;
  for (const auto& one : node.neighbours.processes) {
    const bool is_rank = std::any_of(ranks.begin(), ranks.end(), [&](const Node& rank) {
      return rank.host == node.host && rank.process == one.process;
    });
    if (is_rank) continue;
    cores += one.cores;
    if (names.size() < 3)
      names.push_back(fmt::format("{} ({}, {:.1f})", one.name, one.process, one.cores));
    else if (names.size() == 3)
      names.push_back("...");
  }
  if (names.empty()) return "";
  return fmt::format(
      "{}: other processes keep {:.1f} cores busy, which a run would have to share: {}; in a job, "
      "request the node (--exclusive) or dedicated cores from Slurm",
      node.host, cores, joined(names));
}

std::vector<std::string> crowds(const std::vector<Node>& nodes, const std::vector<Node>& ranks) {
  std::vector<std::string> sentences;
  for (const auto& node : nodes) {
    if (auto sentence = busy_neighbours(node, ranks); !sentence.empty())
      sentences.push_back(std::move(sentence));
    if (node.neighbours.stolen >= 0.02)
      sentences.push_back(
          fmt::format("{}: its hypervisor gave {:.0f} % of the processors' time to other machines "
                      "(steal), so speed varies",
                      node.host, 100 * node.neighbours.stolen));
  }
  return sentences;
}

std::vector<std::string> advice(const std::vector<Node>& nodes,
                                const std::vector<placement::RankPlace>& places) {
  auto sentences = placement::remarks(places, {});
  const auto any = [&](auto&& holds) { return std::any_of(nodes.begin(), nodes.end(), holds); };
  if (any([](const Node& n) { return n.hdf5 == "no locks"; }))
    sentences.push_back(
        "HDF5 cannot lock files in the output folder: export HDF5_USE_FILE_LOCKING=FALSE "
        "(environment of the site file), or write elsewhere");
  if (any([](const Node& n) { return n.hdf5 == "no write"; }))
    sentences.push_back(
        "the output folder is not writable on every node: choose another with --output");
  if (any([](const Node& n) { return n.seen_after < 0; }))
    sentences.push_back(
        "a file that one node writes is not visible on all others: the output folder must be on a "
        "shared file system");
  if (any([](const Node& n) { return std::abs(n.clock) > 0.1; }))
    sentences.push_back(
        "clocks differ: times in logs cannot be compared between nodes; ask the administrators for "
        "NTP");
  if (any([&](const Node& n) { return n.versions != nodes.front().versions; }))
    sentences.push_back(
        "the nodes run different versions: make all of them load the same modules and libraries");
  if (any([](const Node& n) { return n.gpus > 0 && n.torch_gpus == 0; }))
    sentences.push_back(
        "there are GPUs that this LibTorch does not see: use a CUDA or ROCm build of LibTorch, or "
        "parallel.device = \"cpu\"");
  if (const auto fence = fence_advice(); !fence.empty()) sentences.push_back(fence);
  return sentences;
}

constexpr double patience = 300;  // seconds for each measurement

/// "measured by attune 0.1.0 doctor on 2026-12-01, on 4 ranks of 1 node"
std::string source_of(const std::vector<Node>& ranks, const std::vector<Node>& nodes) {
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("measured by attune {} doctor on {:%Y-%m-%d}, on {} rank{} of {} node{}",
                     ATTUNE_VERSION, fmt::gmtime(now), ranks.size(), ranks.size() == 1 ? "" : "s",
                     nodes.size(), nodes.size() == 1 ? "" : "s");
}

/// Before minutes are spent on measuring.
void check_writable(const fs::path& file) {
  const auto folder = fs::absolute(file).parent_path();
  if (!fs::is_directory(folder))
    fail("--write {}: there is no folder {}: make it first", file.string(), folder.string());
  if (::access(folder.c_str(), W_OK) != 0 || fs::is_directory(file))
    fail("--write {}: cannot be written there: choose another file", file.string());
}

int doctor(const std::vector<std::string>& arguments) {
  options::options_description description;
  const auto scratch_here = [] {
    for (const char* name : {"ATTUNE_SCRATCH", "TMPDIR"})
      if (const auto value = slurm::environment_variable(name); !value.empty()) return value;
    return std::string("/tmp");
  };
  description.add_options()("output", options::value<std::string>()->default_value("."),
                            "parent folder of the run directories, whose file system is checked")(
      "scratch", options::value<std::string>()->default_value(scratch_here(), "$TMPDIR"),
      "folder on a node-local disk, which is checked")(
      "write", options::value<std::string>(),
      "also measure rates, and write them to this machine file, for `attune plan`");
  const auto values = parse(doctor_command, arguments, description, {});
  if (!values) return static_cast<int>(ExitCode::done);
  Registry devices;  // a plugin may bring some
  load_plugins(devices, further_plugin_places());
  const auto started = started_by();  // MPI_Init adds variables of its own
  return on_ranks([&](const Comm& comm) {
    const fs::path output = (*values)["output"].as<std::string>();
    const fs::path scratch = (*values)["scratch"].as<std::string>();
    comm.agree([&] {
      if (!fs::is_directory(output)) fail("{}: there is no such folder", output.string());
      if (values->count("write")) check_writable((*values)["write"].as<std::string>());
    });
    const parallel::Watchdog watchdog(comm, patience);
    const auto places = placement::place_ranks({}, comm);
    parallel::report_phase("this node", 0);
    auto mine = describe_node(places[static_cast<std::size_t>(comm.rank())], output, scratch);
    mine.neighbours = placement::neighbours(std::chrono::milliseconds(500));
    mine.seen_after = seconds_until_seen(comm, output);
    std::vector<Node> ranks;
    for (const auto& text : comm.gather(to_json(mine).dump()))
      ranks.push_back(from_json(nlohmann::json::parse(text)));
    measure_links(comm, ranks);
    auto nodes = nodes_of(ranks);
    for (auto& node : nodes) node.gpus = gpus_of(node.host, places);
    std::size_t marks = 0;
    if (comm.root()) {
      std::vector<Row> rows{{"NODE", "RANKS", "PROCESSORS", "MEMORY", "FREE", "GPUS", "SCRATCH",
                             "OUTPUT", "HDF5", "SEEN", "CLOCK", "TRANSPORT", "LATENCY",
                             "BANDWIDTH"}};
      for (const auto& node : nodes) rows.push_back(row_of(node));
      marks = mark(rows, nodes);
      std::cout << fmt::format("{}\nstarted: {} rank{}, {}\na run here uses: {}\n\n", versions(),
                               ranks.size(), ranks.size() == 1 ? "" : "s", started,
                               placement::summary(places))
                << text_table(rows);
      if (nodes.size() > 1) std::cout << "\nLatency and bandwidth are to the first node.\n";
      std::cout << std::flush;  // whatever the GPUs' libraries do next
    }
    if (values->count("write")) {
      const fs::path file = (*values)["write"].as<std::string>();
      auto machine = plan::measure_machine(Mesh::make(comm), output);
      machine.name = file.stem().string();
      machine.source = source_of(ranks, nodes);
      on_root(comm, [&] { plan::write_machine(file, machine); });
      if (comm.root()) std::cout << "\nwrote " << file.string() << "\n" << std::flush;
    }
    parallel::report_phase("links between GPUs", 0);
    const auto links = gpu_links(comm);
    if (comm.root()) {
      if (!links.lines.empty()) std::cout << "\n";
      for (const auto& line : links.lines) std::cout << line << (line.ends_with("\n") ? "" : "\n");
      if (!links.refusal.empty()) std::cout << "\n" << links.refusal << "\n";
      if (marks > 0)
        std::cout << fmt::format(
            "\n* {} odd\n", marks == 1 ? "one value is" : std::to_string(marks) + " values are");
      auto sentences = advice(nodes, places);
      for (auto& sentence : crowds(nodes, ranks)) sentences.push_back(std::move(sentence));
      if (!sentences.empty()) std::cout << "\n";
      for (const auto& sentence : sentences) std::cout << "- " << sentence << "\n";
      if (sentences.empty() && marks == 0 && links.refusal.empty())
        std::cout << "\nnothing is odd\n";
    }
    comm.barrier();
    return static_cast<int>(links.refusal.empty() ? ExitCode::done : ExitCode::user_mistake);
  });
}

}  // namespace

const Command doctor_command{
    "doctor", "[--output DIR] [--scratch DIR] [--write FILE]",
    "checks this machine, or every node when started by mpirun or srun, before a training run",
    doctor};

}  // namespace attune::program
