// attune sweep: many runs as one, as a job array or side by side in this allocation or on this
// machine.
#include <sched.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iostream>
#include <ranges>
#include <regex>
#include <sstream>

#include "command.hpp"
#include "core/files.hpp"
#include "core/host.hpp"
#include "core/signals.hpp"
#include "metrics/objection.hpp"
#include "option_table.hpp"
#include "placement/topology.hpp"
#include "run_checker.hpp"
#include "run_directory/jobs.hpp"
#include "run_directory/lock.hpp"
#include "run_directory/places.hpp"
#include "site.hpp"
#include "slurm/command.hpp"
#include "slurm/environment.hpp"
#include "slurm/launch.hpp"
#include "slurm/script.hpp"
#include "slurm/side_by_side.hpp"
#include "slurm/submission.hpp"
#include "sweep/results.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;
using sweep::Result;
using sweep::Sweep;

struct Arguments {
  std::string file;
  std::vector<std::string> overrides;
  std::vector<std::string> all;
  slurm::Site site;
  bool here = false;
  bool print = false;
};

// ---- Before anything starts: every trial's run file is in order

/// [slurm] of the run file, at this site.
config::SlurmOptions slurm_options(const Sweep& sweep, const slurm::Site& site) {
  auto at_site = slurm::options_at(site, config::Document::parse(sweep.options.run));
  if (!at_site.array.empty())
    fail("{}: a sweep makes its own job arrays: remove slurm.array from the run file",
         sweep.options.run);
  return at_site;
}

/// The effective run file of every trial, and the memory that a rank takes at least; what is wrong
/// with this program for their jobs.
struct CheckedTrials {
  std::vector<std::string> files;
  std::vector<train::HostMemory> memory;
  std::vector<std::string> wrong_build;
};

/// A comparison after the last step would end no trial. steps: 0 where the run file gives epochs.
void check_halving(const Sweep& sweep, std::int64_t steps) {
  const auto first = sweep.halving.first;
  if (first > 0 && steps > 0 && first >= steps)
    fail(
        "halving.first is {}, but the trial has {} steps, so it is never compared: lower it, or "
        "remove [halving]",
        first, steps);
}

/// in_jobs: as job arrays, and not on this machine.
CheckedTrials checked_trials(const Sweep& sweep, const config::SlurmOptions& at_site,
                             bool in_jobs) {
  RunChecker checker(config::Document::parse(sweep.options.run));
  std::vector<std::string> files;
  std::vector<std::string> wrong;
  for (const auto& trial : sweep.trials) {
    try {
      const auto run = checker.check(config::Document::parse(sweep.options.run, trial.overrides),
                                     at_site.ranks());
      if (in_jobs) check_gpus(at_site, run.parallel);
      if (in_jobs && wrong.empty()) wrong = wrong_build(at_site, run.parallel);
      check_halving(sweep, run.train.steps);
      const auto objection = objection_to_metric(sweep.options.metric, checker.metrics());
      if (!objection.empty()) fail("metric: {}", objection);
      files.push_back(run.to_toml());
    } catch (const Error& error) {
      // What the trial sets comes as on the command line, and stands in the sweep file.
      const auto said =
          std::regex_replace(std::string(error.what()), std::regex("(^|\n)command line: "), "$1");
      fail("{}: trial {}: {}", sweep.file.string(), trial.name, said);
    }
  }
  return {files, checker.memory(), wrong};
}

/// Its directory with the plan, and one for each trial that is to be started.
void write_directories(const Sweep& sweep, const config::Document& document,
                       const std::vector<std::string>& run_files,
                       const std::vector<Result>& to_start) {
  const auto directory = sweep.options.directory();
  std::ostringstream plan;
  plan << document.root << "\n";
  write_text(directory / "sweep.toml", plan.str());
  for (const auto& result : to_start)
    run_directory::prepare_directory(
        directory / result.trial->name,
        run_files[static_cast<std::size_t>(result.trial - sweep.trials.data())]);
}

// ---- As job arrays

/// The part of a sweep that is one array: its list of trials, its script, its job.
slurm::Job array_job(const Sweep& sweep, const Arguments& given, config::SlurmOptions at_site,
                     std::size_t size, const std::string& dependency) {
  const auto directory = fs::absolute(sweep.options.directory()).lexically_normal();
  const auto name = fmt::format("{:04}", run_directory::submitted_jobs(directory).size() + 1);
  at_site.retries = sweep.options.retries;
  if (!dependency.empty())
    at_site.dependency =
        at_site.dependency.empty() ? dependency : at_site.dependency + "," + dependency;
  const auto place = directory / "arrays";
  const auto throttle =
      sweep.options.side_by_side > 0 ? fmt::format("%{}", sweep.options.side_by_side) : "";
  return {.name = sweep.options.name,
          .written_by = as_typed("sweep", given.all),
          .from = fs::current_path(),
          .program = fs::read_symlink("/proc/self/exe"),
          .program_files = program_files(),
          .directory = directory,
          .script = place / (name + ".sbatch"),
          .log = slurm::log_pattern(place / name) + "-%a.log",
          .train_options = {"--sweep", directory.string()},
          .options = at_site,
          .site = given.site,
          .array = slurm::Array{fmt::format("0-{}", size - 1) + throttle, size,
                                place / (name + ".trials")}};
}

void submit_arrays(const Sweep& sweep, const Arguments& given, const config::SlurmOptions& at_site,
                   const std::vector<Result>& to_start) {
  const auto directory = fs::absolute(sweep.options.directory()).lexically_normal();
  const auto most = static_cast<std::size_t>(slurm::largest_array(given.site));
  std::string dependency;
  for (std::size_t from = 0; from < to_start.size(); from += most) {
    const auto size = std::min(most, to_start.size() - from);
    const auto job = array_job(sweep, given, at_site, size, dependency);
    const auto script = slurm::job_script(job);
    if (from == 0) slurm::try_submission(script, job.options);
    std::string list;
    for (std::size_t i = 0; i < size; ++i)
      list += (directory / to_start[from + i].trial->name).string() + "\n";
    write_text(job.array->list, list);
    write_text(job.script, script);
    std::string id;
    try {
      id = slurm::submit(job.script, job.options);
    } catch (const Error& error) {
      if (from == 0) throw;
      fail(
          "{} trials are queued, the other {} are not: {}; run the same command again when these "
          "are done",
          from, to_start.size() - from, error.what());
    }
    run_directory::note_submitted(directory, id);
    for (std::size_t i = 0; i < size; ++i)
      run_directory::note_submitted(directory / to_start[from + i].trial->name,
                                    fmt::format("{}_{}", id, i));
    // so many at a time, over all arrays
    if (sweep.options.side_by_side > 0) dependency = "afterany:" + id;
    std::cout << fmt::format(
        "job array {}: {} trial{}{}, script {}\n", id, size, size == 1 ? "" : "s",
        sweep.options.side_by_side > 0 ? fmt::format(", {} at a time", sweep.options.side_by_side)
                                       : "",
        fs::relative(job.script).string());
  }
}

// ---- Here

std::int64_t number_of(const std::string& variable) {
  return std::atoll(slurm::environment_variable(variable).c_str());
}

/// What one trial takes, and how it is started.
class Place {
 public:
  /// wanted: trials at a time; 0: as many as fit. Unless their processors are given, they share all
  /// there are.
  Place(const config::SlurmOptions& o, std::int64_t wanted, bool processors_are_given) : o_(o) {
    slots_ = fitting(wanted);
    if (processors_are_given) return;
    const auto per_node = o_.nodes > 1 ? 1 : (slots_ + nodes_ - 1) / nodes_;
    o_.cpus_per_task = std::max<std::int64_t>(1, processors_ / (per_node * o_.tasks_per_node));
  }

  bool in_allocation() const { return in_allocation_; }
  std::size_t slots() const { return static_cast<std::size_t>(slots_); }

  std::vector<std::string> command(const std::vector<std::string>& train) const {
    std::vector<std::string> start;
    if (in_allocation_) {
      start = {"srun",
               "--mpi=" + o_.mpi,
               "--kill-on-bad-exit=1",
               "--export=ALL",
               "--exact",
               fmt::format("--nodes={}", o_.nodes),
               fmt::format("--ntasks={}", o_.ranks()),
               fmt::format("--cpus-per-task={}", o_.cpus_per_task)};
      for (const auto& [name, value] : o_.srun_options)
        start.push_back("--" + name +
                        (value.empty() ? "" : "=" + slurm::with_variables_replaced(value)));
      // A step would take all of the job's memory, and the next would wait for it.
      if (const auto memory = number_of("SLURM_MEM_PER_NODE"); memory > 0)
        start.push_back(fmt::format(
            "--mem={}", memory * o_.tasks_per_node * o_.cpus_per_task /
                            std::max<std::int64_t>(1, number_of("SLURM_CPUS_ON_NODE"))));
    } else if (o_.ranks() > 1) {
      start = {"mpirun", "--oversubscribe", "--bind-to", "none", "-n", std::to_string(o_.ranks())};
    }
    start.insert(start.end(), train.begin(), train.end());
    return start;
  }

  slurm::Task task(const fs::path& run, const fs::path& sweep) const {
    return {command({fs::read_symlink("/proc/self/exe").string(), "train",
                     run_directory::run_file(run).string(), "--resume", "--sweep", sweep.string()}),
            {fmt::format("OMP_NUM_THREADS={}", o_.cpus_per_task)},
            run_directory::trial_log(run)};
  }

 private:
  std::int64_t fitting(std::int64_t wanted) const {
    if (wanted > 0 && !in_allocation_) return wanted;
    const auto per_node =
        std::max<std::int64_t>(1, processors_ / (o_.tasks_per_node * o_.cpus_per_task));
    const auto fit = in_allocation_ && o_.nodes > 1 ? std::max<std::int64_t>(1, nodes_ / o_.nodes)
                                                    : nodes_ * per_node;
    return wanted > 0 ? std::min(wanted, fit) : fit;
  }

  static std::int64_t cores() {
    return std::ssize(placement::Topology::here().cores(allowed_processors()));
  }

  config::SlurmOptions o_;
  bool in_allocation_ = !slurm::environment_variable("SLURM_JOB_ID").empty();
  std::int64_t nodes_ =
      in_allocation_ ? std::max<std::int64_t>(1, number_of("SLURM_JOB_NUM_NODES")) : 1;
  // of a node
  std::int64_t processors_ = in_allocation_ ? number_of("SLURM_CPUS_ON_NODE") : cores();
  std::int64_t slots_ = 1;
};

/// Whether the run file or the site says what a rank takes.
bool gives_processors(const Sweep& sweep, const config::SlurmOptions& at_site) {
  const auto run = config::Document::parse(sweep.options.run);
  return at_site.cpus_per_task > 1 || run.root.at_path("slurm.cpus_per_task");
}

/// The trials that are started here, each again after a failure while it has retries left.
class TrialsHere {
 public:
  TrialsHere(const Sweep& sweep, const Place& place, const std::vector<Result>& to_start)
      : directory_(sweep.options.directory()), place_(place), all_(to_start.size()) {
    for (const auto& result : std::views::reverse(to_start))
      waiting_.push_back({result.trial->name, sweep.options.retries});
  }

  int run(std::size_t slots) {
    const auto next = [&](slurm::Task& task) { return begin_next(task); };
    slurm::run_side_by_side(slots, next,
                            [&](std::size_t number, int code) { note_end(begun_[number], code); });
    const bool is_interrupted = signal_received() != 0 || interrupted_;
    if (is_interrupted) std::cout << "interrupted; run the same command to continue\n";
    return static_cast<int>(is_interrupted ? ExitCode::interrupted : ExitCode::done);
  }

 private:
  struct Trial {
    std::string name;
    std::int64_t retries;
  };

  bool begin_next(slurm::Task& task) {
    if (waiting_.empty() || job_ends_) return false;
    begun_.push_back(waiting_.back());
    waiting_.pop_back();
    task = place_.task(directory_ / begun_.back().name, directory_);
    return true;
  }

  void note_end(const Trial& trial, int code) {
    const auto progress = run_directory::read_progress(directory_ / trial.name);
    const bool may_begin = signal_received() == 0 && !job_ends_;
    const bool again = code != 0 && code != 2 && code != 75 && trial.retries > 0 && may_begin;
    if (again)
      waiting_.push_back({trial.name, trial.retries - 1});
    else
      ++over_;
    interrupted_ = interrupted_ || code == 75;
    // Slurm signals the steps of a job that is about to end, and a trial saves before that by
    // itself: the next would not get far.
    const bool by_job =
        progress.note.starts_with("by signal") || progress.note == "by the end of the job";
    job_ends_ = job_ends_ || (code == 75 && by_job && place_.in_allocation());
    const auto how = again ? fmt::format("failed with {}, starts again", code)
                           : what_came_of(trial, code, progress);
    std::cout << fmt::format("[{}/{}] {}: {}\n", over_, all_, trial.name, how) << std::flush;
  }

  std::string what_came_of(const Trial& trial, int code,
                           const run_directory::Progress& progress) const {
    if (code == 0 && !progress.is_finished()) return "not started: the budget of hours is used up";
    if (code == 0) return progress.note.empty() ? "done" : progress.note;
    if (code == 75) return "interrupted, its state is saved";
    // A signal ended it before it watched for signals; Ctrl-C also reaches a process that is just
    // being started.
    const bool by_signal = code == 128 + SIGUSR1 || code == 128 + SIGTERM || code == 128 + SIGINT;
    if (signal_received() != 0 && by_signal) return "interrupted before there was anything to save";
    return fmt::format("failed with {}, see {}", code,
                       run_directory::trial_log(directory_ / trial.name).string());
  }

  fs::path directory_;
  const Place& place_;
  std::size_t all_;
  std::size_t over_ = 0;
  // the next one last; in the order of their numbers
  std::vector<Trial> waiting_;
  std::vector<Trial> begun_;
  bool interrupted_ = false;
  bool job_ends_ = false;
};

int run_here(const Sweep& sweep, const config::SlurmOptions& at_site,
             const std::vector<Result>& to_start) {
  const Place place(at_site, sweep.options.side_by_side, gives_processors(sweep, at_site));
  const auto slots = place.slots();
  std::cout << fmt::format("{} trials, {} at a time; each writes its trial.log\n", to_start.size(),
                           std::min(slots, to_start.size()))
            << std::flush;
  slurm::forget_step();
  watch_signals();
  return TrialsHere(sweep, place, to_start).run(slots);
}

// ---- What came out

/// Whether trials ran with another run file than that of now, which may be gone.
void look_for_changes(std::vector<Result>& results, const Sweep& sweep) {
  if (std::ranges::all_of(results,
                          [](const Result& result) { return result.progress.run_file.empty(); }))
    return;
  try {
    const RunChecker checker(config::Document::parse(sweep.options.run));
    std::vector<std::string> files;
    for (const auto& trial : sweep.trials)
      files.push_back(
          checker.read(config::Document::parse(sweep.options.run, trial.overrides)).to_toml());
    note_changes(results, sweep, files);
    tell(told_changes(results, sweep));
  } catch (const Error& error) {
    tell({fmt::format("cannot check whether trials used a different run file: {}", error.what())});
  }
}

void print_report(const Sweep& sweep) {
  auto results = sweep::read_results(sweep);
  tell(told_problems(results));
  look_for_changes(results, sweep);
  const auto metric = ranking_metric(sweep, results);
  sort_by_metric(results, metric);
  const auto file = sweep.options.directory() / "results.csv";
  write_text(file, sweep::csv(full_table(sweep, results)));
  std::cout << text_table(result_table(sweep, results));
  if (sweep.options.seeds > 1) std::cout << "\n" << text_table(setting_table(sweep, results));
  const auto better = metric.better == Better::larger ? "larger" : "smaller";
  std::cout << fmt::format("\n{}; ranked by {}, {} is better; the table is in {}\n",
                           summary(results), metric.name, better, file.string());
}

void print_status(const Sweep& sweep) {
  auto results = sweep::read_results(sweep);
  tell(told_problems(results));
  look_for_changes(results, sweep);
  std::vector<Row> rows{{"TRIAL", "STATE", "JOB", "STEP", "RESTARTS", "LOSS"}};
  for (const auto& result : results) {
    const auto& p = result.progress;
    if (result.is_over() || result.state == "new") continue;
    rows.push_back({result.trial->name, result.state, p.jobs.empty() ? "-" : p.jobs.back(),
                    p.steps > 0 ? fmt::format("{}/{}", p.step, p.steps) : "-",
                    p.starts > 0 ? std::to_string(p.starts - 1) : "-",
                    p.loss ? fmt::format("{:.4f}", *p.loss) : "-"});
  }
  if (rows.size() > 1) std::cout << text_table(rows) << "\n";
  std::cout << summary(results) << "\n";
}

/// A sweep file, or the directory of a sweep.
Sweep open_sweep(const std::string& file, const std::vector<std::string>& overrides) {
  return sweep::read_sweep(config::Document::parse(
      fs::is_directory(file) ? fs::path(file) / "sweep.toml" : fs::path(file), overrides));
}

int start(const Arguments& given) {
  const bool in_allocation = !slurm::environment_variable("SLURM_JOB_ID").empty();
  const bool here = given.here || in_allocation || !slurm::is_installed("sbatch");
  const auto document = config::Document::parse(
      fs::is_directory(given.file) ? fs::path(given.file) / "sweep.toml" : fs::path(given.file),
      given.overrides);
  const auto sweep = sweep::read_sweep(document);
  auto at_site = slurm_options(sweep, given.site);
  const auto notes =
      here && !given.print ? std::vector<std::string>{} : options_of_environment(at_site);
  const auto [run_files, memory, wrong] = checked_trials(sweep, at_site, !here || given.print);
  tell(notes);
  if (!here) tell(small_memory(at_site, memory));
  if (given.print) {
    tell(wrong);
    std::cout << slurm::job_script(array_job(sweep, given, at_site, sweep.trials.size(), ""));
    return static_cast<int>(ExitCode::done);
  }
  if (!here && !wrong.empty()) fail("{}", wrong.front());
  const auto lock = run_directory::RunLock::take(sweep.options.directory(), slurm::is_live);
  auto to_start = sweep::read_results(sweep);
  tell(told_problems(to_start));
  const auto all = to_start.size();
  note_changes(to_start, sweep, run_files);
  tell(told_changes(to_start, sweep));
  std::erase_if(to_start,
                [](const Result& result) { return result.is_over() || result.is_under_way(); });
  if (to_start.size() < all)
    std::cout << fmt::format("{} of {} trials are already done or running\n", all - to_start.size(),
                             all);
  if (to_start.empty()) return static_cast<int>(ExitCode::done);
  if (sweep::hours_are_spent(sweep))
    fail("{}: its trials have used up its {} hours: raise 'hours' to start the {} that are left",
         sweep.file.string(), sweep.options.hours, to_start.size());
  write_directories(sweep, document, run_files, to_start);
  if (!here) {
    submit_arrays(sweep, given, at_site, to_start);
    std::cout << fmt::format(
        "attune sweep status {0} says how it does, attune sweep report {0} what came out\n",
        slurm::shell_word(sweep.options.directory().string()));
    return static_cast<int>(ExitCode::done);
  }
  const int code = run_here(sweep, at_site, to_start);
  std::cout << "\n";
  print_report(sweep);
  return code;
}

int sweep_main(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("what", options::value<std::vector<std::string>>()->required(),
                            "sweep file")("site", options::value<std::string>(), site_option)(
      "here", options::bool_switch(),
      "run the trials on this machine; implied inside a Slurm allocation")(
      "print", options::bool_switch(), "print the script of the job array without submitting it");
  const auto values = parse(sweep_command, arguments, description, {{"what", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  auto words = (*values)["what"].as<std::vector<std::string>>();
  std::string action = "start";
  if (words[0] == "status" || words[0] == "report") {
    action = words[0];
    words.erase(words.begin());
    if (words.empty())
      fail("attune sweep {}: name a sweep file, or the directory of a sweep", action);
  }
  const std::vector<std::string> overrides(words.begin() + 1, words.end());
  if (action == "report") {
    print_report(open_sweep(words[0], overrides));
    return static_cast<int>(ExitCode::done);
  }
  if (action == "status") {
    print_status(open_sweep(words[0], overrides));
    return static_cast<int>(ExitCode::done);
  }
  return start({words[0], overrides, arguments, chosen_site(*values), (*values)["here"].as<bool>(),
                (*values)["print"].as<bool>()});
}

}  // namespace

const Command sweep_command{
    "sweep",
    "[status|report] sweep.toml|SWEEP_DIR [key=value...] [--site NAME|FILE] [--here] [--print]",
    "starts a sweep of many runs, shows its status, or reports its results", sweep_main};

}  // namespace attune::program
