// attune status: how runs do, from their files, the queue and Slurm's accounts. It writes nothing.
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "core/files.hpp"
#include "option_table.hpp"
#include "run_directory/jobs.hpp"
#include "run_directory/progress.hpp"
#include "run_places.hpp"
#include "slurm/logs.hpp"
#include "slurm/reasons.hpp"
#include "slurm/run_state.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;
using run_directory::Progress;
using slurm::QueuedJob;

// docs/slurm.md documents it; one more when a key changes its meaning or goes
constexpr int json_schema = 1;

/// A run and what is known of it.
struct Seen {
  Progress progress;
  std::string state;
  const QueuedJob* job = nullptr;  // in the queue
  std::string account;             // sacct's lines of its newest job
  // of a run that is not done, and no job of it waits or runs
  std::optional<slurm::Ending> ending;
  std::string remark;

  std::string newest_job() const { return progress.jobs.empty() ? "" : progress.jobs.back(); }
  std::optional<double> seconds_left() const {
    const bool goes_on =
        state == "training" && progress.seconds_per_step && progress.steps > progress.step;
    if (!goes_on) return std::nullopt;
    return static_cast<double>(progress.steps - progress.step) * *progress.seconds_per_step;
  }
  bool is_over() const { return !slurm::is_under_way(state); }
};

// ---- Why

/// No error: a log may be as unreadable as the rest of its run.
std::optional<fs::path> log_of(const Seen& run) {
  try {
    return slurm::newest_log(run.progress.directory, run.progress.jobs);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

/// Of its newest job: from the accounts, else from the queue, which remembers jobs for some
/// minutes, else from the log.
std::optional<slurm::Ending> ending_of(const Seen& run) {
  const bool ended_early =
      run.is_over() && run.state != "done" && run.state != "new" && run.state != "unreadable";
  if (!ended_early || run.progress.jobs.empty()) return std::nullopt;
  auto ending = slurm::read_ending(run.account);
  if (!ending && run.job) ending = slurm::Ending{run.job->state, "", run.job->nodes};
  const auto log = log_of(run);
  const auto in_log = log ? slurm::ending_in_log(*log) : std::nullopt;
  const bool log_says_more =
      in_log && (!ending || (ending->state == "FAILED" && in_log->state == "OUT_OF_MEMORY"));
  return log_says_more ? in_log : ending;
}

std::string why_over(const Seen& run) {
  const auto& p = run.progress;
  if (run.state == "done") return p.note;
  auto why = run.state == "interrupted" ? p.note : "";
  const auto add = [&](const std::string& text) { why += (why.empty() ? "" : "; ") + text; };
  if (run.ending) add(slurm::explain_ending(*run.ending));
  if (run.state != "failed") return why;
  if (const auto log = log_of(run)) add("see " + log->string());
  return why;
}

std::string remark_on(const Seen& run) {
  std::string remark;
  if (run.job && (run.state == "queued" || run.state == "requeued"))
    remark = slurm::explain_waiting(run.job->reason);
  if (run.job && (run.state == "training" || run.state == "starting"))
    remark = fmt::format("on {}, {} of its time left", run.job->nodes, run.job->time_left);
  if (run.is_over()) remark = why_over(run);
  const auto launches = run.state == "done" || run.state == "training"
                            ? ""
                            : run_directory::failed_launches(run.progress.directory);
  if (!launches.empty()) remark += (remark.empty() ? "" : "; ") + launches;
  if (!run.progress.problem.empty()) remark += (remark.empty() ? "" : "; ") + run.progress.problem;
  return remark;
}

// ---- What is known

/// One call of squeue, and one of sacct where a job is over: of runs that are not done, and of all
/// with `accounts`.
std::vector<Seen> look_at(const std::vector<fs::path>& directories, std::vector<QueuedJob>& queue,
                          bool accounts) {
  std::vector<Seen> runs;
  std::vector<std::string> ids;
  std::vector<std::string> over;
  for (const auto& directory : directories) {
    runs.push_back({run_directory::read_progress(directory), "", nullptr, "", {}, ""});
    const auto& p = runs.back().progress;
    if (!p.is_finished()) ids.insert(ids.end(), p.jobs.begin(), p.jobs.end());
  }
  const auto known = slurm::ask_queue(ids);
  if (!known)
    std::cerr << "attune: Slurm cannot be queried (squeue is missing or gets no answer); showing "
                 "the state in the files\n";
  queue = known.value_or(std::vector<QueuedJob>{});
  for (auto& run : runs) {
    run.state = slurm::state_of(run.progress, queue);
    run.job = slurm::job_of(run.progress, queue);
    const bool is_asked = run.is_over() && (accounts || run.state != "done");
    if (is_asked && !run.progress.jobs.empty()) over.push_back(run.newest_job());
  }
  const auto all = slurm::ask_accounts(over);
  for (auto& run : runs) {
    const auto account = all.find(run.newest_job());
    if (run.is_over() && account != all.end()) run.account = account->second;
    run.ending = ending_of(run);
    run.remark = remark_on(run);
  }
  return runs;
}

// ---- As a table

std::string duration(double seconds) {
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

Row row_of(const Seen& run) {
  const auto& p = run.progress;
  const auto number = [](const std::optional<double>& value, const char* form) {
    return value ? fmt::format(fmt::runtime(form), *value) : "-";
  };
  const auto left = run.seconds_left();
  return {p.directory.string(),
          run.state,
          p.jobs.empty() ? "-" : run.newest_job(),
          p.steps > 0 ? fmt::format("{}/{}", p.step, p.steps) : "-",
          number(p.loss, "{:.4f}"),
          number(p.tokens_per_second, "{:.0f}"),
          p.memory > 0 ? human_bytes(static_cast<double>(p.memory)) : "-",
          left ? duration(*left) : "-",
          p.starts > 0 ? std::to_string(p.starts - 1) : "-",
          run.remark};
}

std::string table_of(const std::vector<Seen>& runs) {
  std::vector<Row> rows{
      {"RUN", "STATE", "JOB", "STEP", "LOSS", "TOKENS/S", "MEMORY", "LEFT", "RESTARTS", ""}};
  for (const auto& run : runs) rows.push_back(row_of(run));
  return text_table(rows);
}

// ---- As JSON

nlohmann::ordered_json json_of(const Seen& run) {
  const auto& p = run.progress;
  const auto number = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
  };
  nlohmann::ordered_json json{
      {"run", p.directory.string()}, {"state", run.state}, {"job", nullptr}, {"jobs", p.jobs}};
  if (!p.jobs.empty()) json["job"] = run.newest_job();
  json["job_state"] = nullptr;
  if (run.ending)
    json["job_state"] = run.ending->state;
  else if (run.job)
    json["job_state"] = run.job->state;
  json["step"] = p.step;
  json["steps"] = p.steps > 0 ? nlohmann::ordered_json(p.steps) : nlohmann::ordered_json();
  json["loss"] = number(p.loss);
  json["tokens_per_second"] = number(p.tokens_per_second);
  json["memory_bytes"] = p.memory > 0 ? nlohmann::ordered_json(p.memory) : nlohmann::ordered_json();
  json["seconds"] = p.seconds;
  json["seconds_left"] = number(run.seconds_left());
  json["restarts"] = std::max<std::int64_t>(0, p.starts - 1);
  json["evaluation"] = p.evaluation;
  if (!p.not_finite.empty()) json["not_finite"] = p.not_finite;
  if (!p.declared.empty())
    json["metrics"] = nlohmann::ordered_json::parse(metrics_to_json(p.declared));
  if (!p.scalars.empty()) json["scalars"] = p.scalars;
  json["remark"] = run.remark;
  if (run.ending && !run.ending->cancelled_by.empty())
    json["cancelled_by"] = run.ending->cancelled_by;
  if (const auto accounting = slurm::read_accounting(run.account)) json["accounting"] = *accounting;
  return json;
}

std::string json_text(const std::vector<Seen>& runs) {
  nlohmann::ordered_json json{{"schema", json_schema}, {"runs", nlohmann::ordered_json::array()}};
  for (const auto& run : runs) json["runs"].push_back(json_of(run));
  // names may be no UTF-8
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

int status(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()(
      "run", options::value<std::vector<std::string>>()->default_value({"runs"}, "runs"),
      "run directories, or folders that contain run directories")(
      "json", options::bool_switch(), "print JSON, including Slurm's accounting data of each job");
  const auto values = parse(status_command, arguments, description, {{"run", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const bool as_json = (*values)["json"].as<bool>();

  std::vector<fs::path> directories;
  for (const auto& given : (*values)["run"].as<std::vector<std::string>>())
    for (auto& run : find_runs(given).runs) directories.push_back(std::move(run));
  std::vector<QueuedJob> queue;
  const auto runs = look_at(directories, queue, as_json);
  std::cout << (as_json ? json_text(runs) : table_of(runs));
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command status_command{"status", "[RUN|ARRAY|SWEEP|FOLDER...] [--json]",
                             "shows the state of runs: queued, training, interrupted, done",
                             status};

}  // namespace attune::program
