// attune train: read config, load plugins, open data, build the model, let the strategy prepare it,
// run the loop, publish.
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "command.hpp"
#include "core/files.hpp"
#include "core/host.hpp"
#include "core/names.hpp"
#include "core/process.hpp"
#include "core/signals.hpp"
#include "device.hpp"
#include "device/device.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"
#include "report/record.hpp"
#include "run_directory/clear.hpp"
#include "run_directory/evaluation.hpp"
#include "run_directory/lock.hpp"
#include "run_directory/places.hpp"
#include "run_directory/progress.hpp"
#include "run_directory/record.hpp"
#include "slurm/launch.hpp"
#include "slurm/queue.hpp"
#include "slurm/staging.hpp"
#include "sweep/halving.hpp"
#include "sweep/results.hpp"
#include "train/frozen_base.hpp"
#include "train/loop.hpp"
#include "train/metrics.hpp"
#include "train/publish.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;
using run_directory::RunLock;

/// Error when the run reads from the directory that is to be replaced.
void refuse_to_clear_inputs(const config::RunConfig& config) {
  const auto folder = fs::weakly_canonical(config.directory());
  for (const auto& input : {config.model.path, config.dataset.path, config.adapter}) {
    const auto inside =
        input.empty() ? fs::path("..") : fs::weakly_canonical(input).lexically_relative(folder);
    if (!inside.empty() && *inside.begin() != "..")
      fail("{}: --overwrite would remove {}, which this run reads: give this run another name",
           config.directory().string(), input);
  }
}

/// A run directory is made once; what is in it is only gone on from, or replaced, when that is
/// asked for.
void make_directory(const config::RunConfig& config, bool resume, bool overwrite) {
  const auto folder = config.directory();
  if (resume) run_directory::check_can_go_on(folder);
  if (run_directory::has_begun(folder) && !resume) {
    if (!overwrite)
      fail(
          "{}: already contains a run; give --resume to continue it, --overwrite to replace it, or "
          "another name",
          folder.string());
    refuse_to_clear_inputs(config);
    const auto others = run_directory::clear_run(folder);
    if (!others.empty())
      std::cerr << fmt::format(
          "attune: note: {}: --overwrite keeps files that do not belong to the run: {}\n",
          folder.string(), joined(others));
  }
}

/// A directory that was removed under the run is made again, with its lock, run file and record;
/// returns whether it was. Error when another run is in it.
bool restore_directory(std::optional<RunLock>& lock, const config::RunConfig& config,
                       const std::string& record) {
  if (lock->is_held()) return false;
  const auto folder = config.directory();
  const auto file = run_directory::record_file(folder);
  const bool is_there = fs::exists(file);
  const auto is_of_other = [&] {
    return !run_directory::have_one_history(read_text(file), record);
  };
  if (run_directory::holder_of(folder) || (is_there && is_of_other()))
    fail(
        "{}: was removed during this run and now contains another run: this run ends without a "
        "checkpoint; start it again under another name",
        folder.string());
  lock.emplace(RunLock::take(folder, slurm::is_live));
  if (is_there) return false;  // the lock alone was removed
  write_text(run_directory::run_file(folder), config.to_toml());
  run_directory::write_record(folder, record);
  std::cerr << fmt::format(
      "attune: {}: was removed during the run, with its log and older checkpoints; it is "
      "recreated, and the state is saved there\n",
      folder.string());
  return true;
}

std::string record_of(const train::OpenedRun& run, const train::Session& session,
                      const std::vector<std::string>& arguments) {
  RecordInput input{run.config.run.name,
                    run.config.to_toml(),
                    run.config.model.path,
                    session.base_sha256,
                    run.config.dataset.path,
                    {},
                    run.config.plugin_files(),
                    arguments,
                    run.config.folder.empty() ? fs::current_path() : run.config.folder,
                    session.device};
  for (const auto& split : session.data->splits())
    input.data_sha256.emplace_back(split, session.data->split(split).sha256());
  std::string earlier;
  on_root(session.mesh.world,
          [&] { earlier = run_directory::earlier_record(run.config.directory()); });
  return make_record(input, earlier, session.mesh.world);
}

/// Of this attempt so far; empty on one rank. Collective.
std::map<std::string, run_directory::Collective> communication_of(const Comm& world) {
  std::map<std::string, run_directory::Collective> communication;
  for (const auto& [name, sent] : parallel::traffic_of_ranks(world))
    communication[name] = {sent.calls, sent.bytes};
  return communication;
}

/// What each rank's device held at most; empty on the host, and where devices do not count.
/// Collective.
std::vector<std::int64_t> device_memory_of(const train::Session& session) {
  if (session.device.is_cpu()) return {};
  const auto peak = device::peak(session.device);
  if (session.mesh.world.sum(std::int64_t{!peak}) > 0) return {};
  const auto mine = std::to_string(*peak);
  std::vector<std::int64_t> bytes;
  for (const auto& text : session.mesh.world.gather(mine)) bytes.push_back(std::stoll(text));
  return bytes;
}

/// What the ranks of each node hold on the host. Collective.
std::vector<run_directory::NodeMemory> host_memory_of(const train::Session& session) {
  const auto shared = session.memory ? train::bytes_held_once(*session.model) : 0;
  const nlohmann::json mine{host_name(), proportional_memory(), shared};
  std::map<std::string, run_directory::NodeMemory> nodes;
  for (const auto& text : session.mesh.world.gather(mine.dump())) {
    const auto of_rank = nlohmann::json::parse(text);
    auto& node = nodes[of_rank[0]];
    node.host = of_rank[0];
    ++node.ranks;
    node.bytes += of_rank[1].get<std::int64_t>();
    node.shared = of_rank[2];
  }
  std::vector<run_directory::NodeMemory> all;
  for (auto& [host, node] : nodes) all.push_back(std::move(node));
  return all;
}

/// A run that is repeated from its record starts from the same things, or not at all.
void check_against_record(const fs::path& file, const train::Session& session) {
  if (file.extension() != ".json") return;
  const auto recorded = run_directory::read_recorded_inputs(file);
  if (recorded.base_model_sha256 != session.base_sha256)
    fail(
        "{}: the base model {} is not the recorded one (its sha256 differs): restore it, or start "
        "from a run file",
        file.string(), session.config.model.path);
  for (const auto& [split, hash] : recorded.data_sha256)
    if (!session.data->has(split) || session.data->split(split).sha256() != hash)
      fail(
          "{}: the split '{}' of {} is not the recorded one (its sha256 differs): prepare it "
          "again, or start from a run file",
          file.string(), split, session.config.dataset.path);
}

/// Collective.
void finish(train::Session& session, const train::Outcome& outcome) {
  const auto& world = session.mesh.world;
  const auto folder = session.config.directory();
  const auto result = folder / train::result_name(session);
  const auto& found = outcome.found;
  on_root(world, [&] {
    run_directory::write_evaluation(
        folder, {"validation", outcome.evaluated_samples, found.base, found.tuned, found.declared});
    fs::remove_all(result);
  });
  train::publish(session, result, false);
  if (!world.root()) return;
  std::cout << "\n"
            << session.config.run.name << ": " << outcome.evaluated_samples
            << " validation samples\n"
            << comparison_table(found) << "\nthe result is in " << result.string() << std::endl;
}

struct Arguments {
  fs::path file;
  std::vector<std::string> overrides;
  std::vector<std::string> all;
  train::Resume resume;
  bool overwrite = false;
  std::string sweep;  // its directory, when the run is a trial
};

/// A trial of a sweep may be ended by its rivals. False: the sweep's time is used up, and it does
/// not begin.
bool join_sweep(config::RunConfig& config, const fs::path& directory, const Comm& comm) {
  bool spent = false;
  on_root(comm, [&] {
    spent = sweep::hours_are_spent(
        sweep::read_sweep(config::Document::parse(directory / "sweep.toml")));
  });
  if (comm.max(spent) != 0) return false;
  comm.agree([&] { sweep::add_halving(config, directory); });
  return true;
}

int run_training(const Comm& comm, const Arguments& given) {
  auto run = train::open_run(given.file, given.overrides, comm);
  if (!given.sweep.empty() && !join_sweep(run.config, given.sweep, comm)) {
    if (comm.root()) std::cout << run.config.run.name << ": the sweep has used up its hours\n";
    return static_cast<int>(ExitCode::done);
  }
  refuse_idle_gpus(run.config, comm);
  const auto places = place_ranks(run.config.parallel, comm);
  const auto waiting = watch_waiting(places, comm);
  slurm::check_asked(run.config, places, comm);
  comm.agree([&] { train::check_copies(run.config.parallel, run.mesh.data.size()); });
  if (comm.root()) fmt::print(stderr, "{}\n", placement::summary(places));
  const slurm::Staging staging(run.config, run.mesh);
  auto session = train::Session::open(staging.config(), run.mesh);
  session.config = run.config;  // what is published names the originals
  comm.agree(
      [&] { train::check_metric_options(session.config, train::declared_metrics(session)); });
  on_root(comm, [&] { train::check_publishable(session); });
  train::identify_base(session);
  const auto directory = run.config.directory();
  std::optional<RunLock> lock;
  on_root(comm, [&] {
    check_against_record(given.file, session);
    lock.emplace(RunLock::take(directory, slurm::is_live));
    make_directory(run.config, given.resume.wanted, given.overwrite);
  });
  const bool went_before = given.resume.wanted && fs::exists(run_directory::record_file(directory));
  auto record = record_of(run, session, given.all);  // empty on other ranks than the first
  const auto loaded = host_memory_of(session);
  if (comm.root()) record = run_directory::with_memory(record, loaded);
  const auto note_end = [&](const std::string& what, std::int64_t step, const std::string& text) {
    const auto communication = communication_of(comm);
    const auto memory = device_memory_of(session);
    const auto on_hosts = host_memory_of(session);
    on_root(comm, [&] {
      record = run_directory::with_communication(
          run_directory::with_event(record, what, step, text), communication);
      record = run_directory::with_device_memory(record, memory);
      record = run_directory::with_memory(record, on_hosts);
      run_directory::write_record(directory, record);
    });
  };
  session.begins = [&] {
    write_text(run_directory::run_file(directory), run.config.to_toml());
    record = run_directory::with_event(record, went_before ? "resumed" : "started", 0);
    run_directory::write_record(directory, record);
  };
  session.restore_directory = [&] { return restore_directory(lock, run.config, record); };

  const auto outcome = train::run_loop(session, given.resume);
  if (!outcome.interrupted_by.empty()) {
    note_end("interrupted", outcome.step, "by " + outcome.interrupted_by);
    return static_cast<int>(ExitCode::interrupted);
  }
  finish(session, outcome);
  note_end("finished", outcome.step, outcome.stop_reason);
  return static_cast<int>(ExitCode::done);
}

int train_main(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file")(
      "override", options::value<std::vector<std::string>>()->default_value({}, ""),
      "override of a run file setting: section.key=value")(
      "resume", options::bool_switch(), "resume from the newest complete checkpoint of the run")(
      "resume-anyway", options::bool_switch(),
      "resume even if settings differ from the checkpoint's")(
      "overwrite", options::bool_switch(), "replace an existing run of the same name")(
      "sweep", options::value<std::string>()->default_value("", ""),
      "directory of the sweep that this run belongs to as a trial");
  const auto values = parse(train_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const auto is_set = [&](const char* name) { return (*values)[name].as<bool>(); };
  const Arguments given{(*values)["run"].as<std::string>(),
                        (*values)["override"].as<std::vector<std::string>>(),
                        arguments,
                        {is_set("resume") || is_set("resume-anyway"), is_set("resume-anyway")},
                        is_set("overwrite"),
                        (*values)["sweep"].as<std::string>()};
  watch_signals();  // before MPI starts, which may take long
  return on_ranks([&](const Comm& comm) { return run_training(comm, given); });
}

}  // namespace

const Command train_command{"train",
                            "run.toml|record.json [section.key=value...] "
                            "[--resume|--resume-anyway] [--overwrite] [--sweep DIR]",
                            "trains a model, on several ranks when started by mpirun or srun",
                            train_main};

}  // namespace attune::program
