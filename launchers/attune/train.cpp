// attune train: read config, load plugins, open data, build the model, let the strategy prepare it, run the loop, publish.
#include <iostream>

#include "command.hpp"
#include "core/files.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"
#include "report/record.hpp"
#include "train/loop.hpp"
#include "train/publish.hpp"
#include "train/signals.hpp"
#include "weights/model_files.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

/// A run directory is made once; what is in it is only gone on from, or replaced, when that is asked for.
void make_directory(const config::RunConfig& config, bool resume, bool overwrite) {
  const auto folder = config.directory();
  if (fs::exists(folder / "metrics.jsonl") && !resume) {
    if (!overwrite) fail("{}: holds a run already; give --resume to go on with it, --overwrite to replace it, or another name", folder.string());
    fs::remove_all(folder);
  }
  fs::create_directories(folder);
  write_text(folder / "run.toml", config.to_toml());
}

std::string record_of(const train::OpenedRun& run, const train::Session& session, const std::vector<std::string>& arguments) {
  RecordInput input{run.config.run.name, run.config.model.path, "", run.config.dataset.path, {}, {}, arguments};
  if (session.comm.root()) input.base_model_sha256 = weights_sha256(*session.files);
  for (const auto& split : session.data->splits()) input.data_sha256.emplace_back(split, session.data->split(split).sha256());
  for (const auto& plugin : run.plugins) input.plugin_files.emplace_back(plugin.name + " " + plugin.version, plugin.file);
  return make_record(input, session.comm);
}

void finish(train::Session& session, const train::Outcome& outcome) {
  const auto folder = session.config.directory();
  const auto result = folder / train::result_name(session);
  write_text(folder / "evaluation.json", evaluation_json("validation", outcome.evaluated_samples, outcome.base, outcome.tuned));
  fs::remove_all(result);
  train::publish(session, result, false);
  std::cout << "\n" << session.config.run.name << ": " << outcome.evaluated_samples << " validation samples\n"
            << comparison_table(outcome.base, outcome.tuned) << "\nthe result is in " << result.string() << "\n";
}

int run_training(const Comm& comm, const fs::path& file, const std::vector<std::string>& overrides, bool resume, bool overwrite, const std::vector<std::string>& arguments) {
  train::set_threads(comm);
  train::watch_signals();
  const auto run = train::open_run(file, overrides, comm);
  auto session = train::Session::open(run.config, comm);
  on_root(comm, [&] { make_directory(run.config, resume, overwrite); });
  const auto record = record_of(run, session, arguments);
  on_root(comm, [&] { write_text(run.config.directory() / "record.json", record); });

  const auto outcome = train::run_loop(session, resume);
  if (outcome.interrupted) return static_cast<int>(ExitCode::interrupted);
  on_root(comm, [&] { finish(session, outcome); });
  return static_cast<int>(ExitCode::done);
}

int train_main(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file")("override", options::value<std::vector<std::string>>()->default_value({}, ""), "key=value")(
      "resume", options::bool_switch(), "go on from the newest whole checkpoint of the run")("overwrite", options::bool_switch(), "replace a run of the same name");
  const auto values = parse(train_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    return run_training(comm, (*values)["run"].as<std::string>(), (*values)["override"].as<std::vector<std::string>>(), (*values)["resume"].as<bool>(),
                        (*values)["overwrite"].as<bool>(), arguments);
  });
}

}  // namespace

const Command train_command{"train", "run.toml [section.key=value...] [--resume] [--overwrite]", "trains; on several ranks under mpirun or srun", train_main};

}  // namespace attune::program
