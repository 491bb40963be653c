// attune submit: a run file becomes a job script and a job, after the checks that a job should not wait in the queue for.
#include <fstream>
#include <iostream>
#include <thread>

#include "command.hpp"
#include "config/document.hpp"
#include "core/files.hpp"
#include "data/sampler.hpp"
#include "site.hpp"
#include "slurm/progress.hpp"
#include "slurm/script.hpp"
#include "slurm/submission.hpp"
#include "train/session.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

/// What `attune check` checks, and that the batch can be shared among the job's ranks. In this process alone: a login node may have no MPI.
config::RunConfig checked_run(const fs::path& file, const std::vector<std::string>& overrides, std::int64_t ranks) {
  const auto run = train::open_run(file, overrides, Comm());
  const auto session = train::Session::open(run.config, Comm());
  Sampler(session.data->split("train").size(), run.config.train.global_batch, run.config.run.seed, static_cast<int>(ranks));
  return run.config;
}

slurm::Job describe_job(const config::RunConfig& run, const slurm::Site& site, const config::SlurmOptions& options, const std::vector<std::string>& arguments) {
  const auto directory = run.directory();
  std::string name = run.run.name;
  for (std::size_t at = 0; (at = name.find('%', at)) != std::string::npos; at += 2) name.insert(at, "%");  // Slurm's sign for patterns
  return {run.run.name, as_typed("submit", arguments), fs::read_symlink("/proc/self/exe"), directory, directory / "job.sbatch", fs::path(run.run.output) / name / "slurm-%j.log", {}, options, site, std::nullopt};
}

/// Prints what the log gains until the job is over.
void follow(const std::string& id, const fs::path& log) {
  std::streamoff printed = 0;
  std::string state;
  for (bool over = false; !over;) {
    const auto jobs = slurm::ask_queue({id});
    over = jobs && (jobs->empty() || !jobs->front().is_live());
    if (jobs && !jobs->empty() && jobs->front().state != state) {
      state = jobs->front().state;
      std::cout << fmt::format("== job {}: {}{}", id, state, state == "PENDING" ? " (" + jobs->front().reason + ")" : state == "RUNNING" ? " on " + jobs->front().nodes : "") << std::endl;
    }
    std::ifstream file(log, std::ios::binary);
    file.seekg(printed);
    const std::string more{std::istreambuf_iterator<char>(file), {}};
    std::cout << more << std::flush;
    printed += static_cast<std::streamoff>(more.size());
    if (!over) std::this_thread::sleep_for(std::chrono::seconds(2));
  }
}

int submit(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file")("override", options::value<std::vector<std::string>>()->default_value({}, ""), "key=value")(
      "print", options::bool_switch(), "show the job script, and submit nothing")("wait", options::bool_switch(), "follow the job's log until it is done")(
      "site", options::value<std::string>(), site_option);
  const auto values = parse(submit_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const fs::path file = (*values)["run"].as<std::string>();
  const auto overrides = (*values)["override"].as<std::vector<std::string>>();
  const bool print = (*values)["print"].as<bool>();

  if (!print) slurm::check_can_submit();
  const auto site = chosen_site(*values);
  const auto at_site = slurm::options_at(site, config::Document::parse(file, overrides));
  const auto run = checked_run(file, overrides, at_site.ranks());
  const auto job = describe_job(run, site, at_site, arguments);
  const auto script = slurm::job_script(job);
  if (print) return std::cout << script, static_cast<int>(ExitCode::done);

  const auto directory = run.directory();
  slurm::check_is_free(directory);
  if (slurm::is_finished(directory)) fail("{}: holds a run that is done; give this one another name, or remove the directory", directory.string());
  slurm::try_submission(script, at_site);
  fs::create_directories(directory);
  fs::remove(directory / "attempts");
  write_text(directory / "run.toml", run.to_toml());
  write_text(job.script, script);
  const auto id = slurm::submit(job.script, at_site);
  slurm::note_submitted(directory, id);
  const auto log = directory / fmt::format("slurm-{}.log", id);
  std::cout << fmt::format("job {} is queued: {} node{} of {} rank{}\n  its script is {}\n  its log will be {}\n  attune status {} says how it does\n", id, at_site.nodes, at_site.nodes == 1 ? "" : "s",
                           at_site.tasks_per_node, at_site.tasks_per_node == 1 ? "" : "s", job.script.string(), log.string(), slurm::shell_word(directory.string()))
            << std::flush;
  if (!(*values)["wait"].as<bool>()) return static_cast<int>(ExitCode::done);
  follow(id, log);
  if (slurm::is_finished(directory)) return static_cast<int>(ExitCode::done);
  fail("job {} ended before its run was done; its log says why: {}", id, log.string());
}

}  // namespace

const Command submit_command{"submit", "run.toml [section.key=value...] [--site NAME|FILE] [--print] [--wait]", "writes a job script for Slurm and submits it", submit};

}  // namespace attune::program
