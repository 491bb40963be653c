// attune submit: a run file becomes a job script and a job, after the checks that a job should not
// wait in the queue for.
#include <iostream>
#include <thread>

#include "command.hpp"
#include "config/document.hpp"
#include "core/files.hpp"
#include "log_tail.hpp"
#include "run_checker.hpp"
#include "run_directory/jobs.hpp"
#include "run_directory/places.hpp"
#include "run_directory/progress.hpp"
#include "site.hpp"
#include "slurm/reasons.hpp"
#include "slurm/script.hpp"
#include "slurm/submission.hpp"
#include "train/state.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

/// What the job trains: one run, or the elements of its array.
struct Plan {
  std::vector<std::int64_t> elements;  // empty: one run
  std::vector<config::RunConfig> runs;
  std::vector<train::HostMemory> memory;        // of the host, at least
  std::map<fs::path, std::string> conflicts{};  // by directory: what its checkpoints would refuse
};

/// The run file of one element: its number behind the name, and nothing more of the array.
config::Document element_file(const config::Document& whole, std::vector<std::string> overrides,
                              const config::SlurmOptions& options, std::int64_t element) {
  for (auto& setting : options.overrides_of(element)) overrides.push_back(std::move(setting));
  const auto name = whole.root["name"].value<std::string>();
  if (name && !name->empty())
    overrides.push_back("name=" + to_toml(OptionValue(fmt::format("{}-{}", *name, element))));
  auto document = train::run_document(whole.path, overrides);
  if (auto* slurm = document.root["slurm"].as_table()) {
    slurm->erase("array");
    slurm->erase("each");
  }
  return document;
}

/// What keeps the job from going on from the run's checkpoint; "" when nothing does.
std::string conflict_of(const RunChecker& checker, const config::RunConfig& run) {
  const auto before = run_directory::run_file(run.directory());
  if (!fs::exists(before) || !fs::exists(train::checkpoint_folder(run)) ||
      run_directory::is_finished(run.directory()))
    return "";
  return train::differences_of_settings(run, checker.read(train::run_document(before)));
}

/// The job would refuse other settings, too, but only once it has waited.
void check_goes_on(const Plan& plan) {
  for (const auto& run : plan.runs)
    if (const auto& conflict = plan.conflicts.at(run.directory()); !conflict.empty())
      fail(
          "{}: has checkpoints of different settings: {}; restore them, use another name, or "
          "continue with `attune train ... --resume-anyway`",
          run.directory().string(), conflict);
}

/// Every run checked.
Plan checked_plan(const fs::path& file, const std::vector<std::string>& overrides,
                  const config::SlurmOptions& options) {
  const auto document = train::run_document(file, overrides);
  RunChecker checker(document);
  Plan plan{config::array_elements(options.array), {}, {}, {}};
  const auto add = [&](const config::Document& run_file) {
    plan.runs.push_back(checker.check(run_file, options.ranks()));
    check_gpus(options, plan.runs.back().parallel);
    plan.conflicts[plan.runs.back().directory()] = conflict_of(checker, plan.runs.back());
  };
  if (plan.elements.empty()) add(document);
  for (const auto element : plan.elements) {
    try {
      add(element_file(document, overrides, options, element));
    } catch (const Error& error) {
      fail("element {} of the array: {}", element, error.what());
    }
  }
  plan.memory = checker.memory();
  return plan;
}

slurm::Job describe_job(const Plan& plan, const slurm::Site& site,
                        const config::SlurmOptions& options,
                        const std::vector<std::string>& arguments) {
  const auto& first = plan.runs.front();
  const fs::path output = fs::absolute(first.run.output).lexically_normal();
  slurm::Job job{.name = first.run.name,
                 .written_by = as_typed("submit", arguments),
                 .from = first.folder.empty() ? fs::current_path() : first.folder,
                 .program = fs::read_symlink("/proc/self/exe"),
                 .program_files = program_files(),
                 .directory = {},
                 .script = {},
                 .log = {},
                 .train_options = {},
                 .options = options,
                 .site = site,
                 .array = std::nullopt};
  if (plan.elements.empty()) {
    job.directory = output / job.name;
    job.script = run_directory::job_script(job.directory);
    job.log = run_directory::job_log(slurm::log_pattern(job.directory), "%j").string();
  } else {
    job.name.resize(job.name.rfind('-'));
    job.directory = output / job.name;
    job.script = output / (job.name + ".sbatch");
    job.log = run_directory::job_log(slurm::log_pattern(job.directory) + "-%a", "%A_%a").string();
    job.array = slurm::Array{options.array, plan.elements.size(), {}};
  }
  return job;
}

/// As the run file has it, and not absolute.
fs::path script_shown(const Plan& plan, const slurm::Job& job) {
  return plan.runs.front().directory().parent_path() /
         job.script.lexically_relative(job.directory.parent_path());
}

/// Of an array those elements are left out whose runs are done. Error when nothing is left, or when
/// one of the runs waits or trains.
Plan without_done(const Plan& plan) {
  Plan left{{}, {}, plan.memory, plan.conflicts};
  std::vector<fs::path> directories;
  std::string done;
  for (std::size_t i = 0; i < plan.runs.size(); ++i) {
    const auto directory = plan.runs[i].directory();
    directories.push_back(directory);
    if (run_directory::is_finished(directory)) {
      if (done.empty()) done = directory.string();
      continue;
    }
    left.runs.push_back(plan.runs[i]);
    if (!plan.elements.empty()) left.elements.push_back(plan.elements[i]);
  }
  slurm::check_are_free(directories);
  if (left.runs.empty())
    fail("{}: contains a completed run; give this one another name, or remove the directory", done);
  return left;
}

/// The same elements at a time as before.
std::string array_of(const Plan& plan, const std::string& asked) {
  const auto throttle = asked.find('%');
  return config::array_text(plan.elements) +
         (throttle == std::string::npos ? "" : asked.substr(throttle));
}

/// Run files and script, then the job itself. Returns its id.
std::string queue(const Plan& plan, const slurm::Job& job, const std::string& script) {
  for (const auto& run : plan.runs)
    run_directory::prepare_directory(run.directory(), run.to_toml());
  write_text(job.script, script);
  const auto id = slurm::submit(job.script, job.options);
  for (std::size_t i = 0; i < plan.runs.size(); ++i)
    run_directory::note_submitted(
        plan.runs[i].directory(),
        plan.elements.empty() ? id : fmt::format("{}_{}", id, plan.elements[i]));
  return id;
}

/// So that the printed script can be submitted as it is: Slurm makes no folder for its log, and the
/// ranks read the run file there. A run that was submitted or has begun keeps its own. Returns what
/// to tell of that.
std::vector<std::string> make_submittable(const Plan& plan) {
  std::vector<std::string> notes;
  for (const auto& run : plan.runs) {
    const auto directory = run.directory();
    const auto file = run_directory::run_file(directory);
    const bool is_taken =
        run_directory::has_begun(directory) || !run_directory::submitted_jobs(directory).empty();
    if (!is_taken)
      run_directory::prepare_directory(directory, run.to_toml());
    else if (!fs::exists(file) || read_text(file) != run.to_toml())
      notes.push_back(
          fmt::format("{}: belongs to a run that was started or submitted, and is kept: the script "
                      "trains with that file",
                      file.string()));
  }
  return notes;
}

std::string counted(std::int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

/// Prints what the log gains until the job is over.
void follow(const std::string& id, const fs::path& log) {
  LogTail tail(log);
  std::string state;
  for (bool over = false; !over;) {
    const auto jobs = slurm::ask_queue({id});
    over = jobs && (jobs->empty() || !jobs->front().is_live());
    if (jobs && !jobs->empty() && jobs->front().state != state) {
      state = jobs->front().state;
      std::cout << fmt::format("== job {}: {}{}", id, state,
                               state == "PENDING"
                                   ? " (" + slurm::explain_waiting(jobs->front().reason) + ")"
                               : state == "RUNNING" ? " on " + jobs->front().nodes
                                                    : "")
                << std::endl;
    }
    tail.print();
    if (!over) std::this_thread::sleep_for(std::chrono::seconds(2));
  }
}

void check_array(const config::SlurmOptions& options, const slurm::Site& site, bool print,
                 bool wait) {
  const auto elements = config::array_elements(options.array);
  if (elements.empty()) return;
  if (wait)
    fail(
        "--wait follows the log of a single run, but slurm.array defines {}: watch them with "
        "`attune status`",
        counted(std::ssize(elements), "run"));
  if (const auto most = print ? elements.back() + 1 : slurm::largest_array(site);
      elements.back() >= most)
    fail(
        "slurm.array goes up to {}, but this cluster's largest index is {}: submit it in parts, or "
        "use a sweep, which does so automatically",
        elements.back(), most - 1);
}

int submit(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(), "run file")(
      "override", options::value<std::vector<std::string>>()->default_value({}, ""),
      "override of a run file setting: section.key=value")(
      "print", options::bool_switch(), "print the job script without submitting it")(
      "wait", options::bool_switch(), "follow the job's log until the job ends")(
      "site", options::value<std::string>(), site_option);
  const auto values = parse(submit_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const fs::path file = (*values)["run"].as<std::string>();
  const auto overrides = (*values)["override"].as<std::vector<std::string>>();
  const bool print = (*values)["print"].as<bool>();
  const bool wait = (*values)["wait"].as<bool>();

  if (!print) slurm::check_can_submit();
  const auto site = chosen_site(*values);
  auto at_site = slurm::options_at(site, config::Document::parse(file, overrides));
  const auto notes = options_of_environment(at_site);
  check_array(at_site, site, print, wait);
  auto plan = checked_plan(file, overrides, at_site);
  if (!print) {
    const auto asked = std::ssize(plan.runs);
    plan = without_done(plan);
    check_goes_on(plan);
    if (const auto done = asked - std::ssize(plan.runs); done > 0) {
      at_site.array = array_of(plan, at_site.array);
      std::cout << fmt::format("{} of {} runs are done already\n", done, asked);
    }
  }
  const auto job = describe_job(plan, site, at_site, arguments);
  const auto script = slurm::job_script(job);
  tell(notes);
  tell(small_memory(at_site, plan.memory));
  tell(missing_gpus(at_site, plan.runs.front().parallel));
  if (print) {
    tell(wrong_build(at_site, plan.runs.front().parallel));
    tell(make_submittable(plan));
    std::cout << script;
    return static_cast<int>(ExitCode::done);
  }

  refuse_wrong_build(at_site, plan.runs.front().parallel);
  slurm::try_submission(script, at_site);
  const auto id = queue(plan, job, script);
  auto directory = plan.runs.front().directory();
  auto log = run_directory::job_log(directory, id);
  if (job.array) {
    directory = directory.parent_path() / job.name;
    log = run_directory::job_log(directory.string() + "-*", id + "_*");
  }
  const auto shown = slurm::shell_word(directory.string());
  std::cout << fmt::format(
                   "job {} is queued: {}{} of {}\n  its script is {}\n  its log{} will be {}\n  "
                   "attune status {} says how it does\n",
                   id, job.array ? counted(std::ssize(plan.runs), "run") + ", each on " : "",
                   counted(at_site.nodes, "node"), counted(at_site.tasks_per_node, "rank"),
                   script_shown(plan, job).string(), job.array ? "s" : "", log.string(),
                   job.array ? shown + "-*" : shown)
            << std::flush;
  if (!wait) return static_cast<int>(ExitCode::done);
  follow(id, log);
  if (run_directory::is_finished(directory)) return static_cast<int>(ExitCode::done);
  fail("job {} ended before its run was done; for the reason, see its log: {}", id, log.string());
}

}  // namespace

const Command submit_command{
    "submit", "run.toml [section.key=value...] [--site NAME|FILE] [--print] [--wait]",
    "writes a Slurm job script and submits it", submit};

}  // namespace attune::program
