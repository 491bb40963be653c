// attune status: how runs do, from their files and the queue.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "option_table.hpp"
#include "slurm/progress.hpp"
#include "slurm/reasons.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;
using slurm::Progress;

/// Those given, and for a folder that is no run itself the runs in it.
std::vector<fs::path> run_directories(const std::vector<std::string>& given) {
  const auto is_run = [](const fs::path& path) { return fs::exists(path / "run.toml"); };
  std::vector<fs::path> runs;
  for (const fs::path place : given) {
    if (!fs::is_directory(place)) fail("{}: there is no such run directory", place.string());
    if (is_run(place)) {
      runs.push_back(place);
      continue;
    }
    std::vector<fs::path> inside;
    for (const auto& entry : fs::directory_iterator(place))
      if (is_run(entry.path())) inside.push_back(entry.path());
    if (inside.empty()) fail("{}: is no run directory, and holds none", place.string());
    std::sort(inside.begin(), inside.end(), [](const fs::path& a, const fs::path& b) { return natural_less(a.string(), b.string()); });
    runs.insert(runs.end(), inside.begin(), inside.end());
  }
  return runs;
}

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60) : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

Row row_of(const Progress& p, const std::vector<slurm::QueuedJob>& queue) {
  const auto state = slurm::state_of(p, queue);
  const auto* job = slurm::job_of(p, queue);
  const auto number = [](const std::optional<double>& value, const char* form) { return value ? fmt::format(fmt::runtime(form), *value) : "-"; };
  const bool goes_on = state == "training" && p.seconds_per_step && p.steps > p.step;
  std::string remark = state == "done" ? p.note : "";
  if (job && (state == "queued" || state == "requeued")) remark = slurm::explain_waiting(job->reason);
  if (job && (state == "training" || state == "starting")) remark = fmt::format("on {}, {} of its time left", job->nodes, job->time_left);
  if (state == "interrupted") remark = p.note;
  return {p.directory.string(), state, p.jobs.empty() ? "-" : p.jobs.back(), p.steps > 0 ? fmt::format("{}/{}", p.step, p.steps) : "-", number(p.loss, "{:.4f}"), number(p.tokens_per_second, "{:.0f}"),
          goes_on ? duration(static_cast<double>(p.steps - p.step) * *p.seconds_per_step) : "-", p.starts > 0 ? std::to_string(p.starts - 1) : "-", remark};
}

/// What a job took, into the record of its run, once it is over and where Slurm keeps accounts.
void keep_accounts(const Progress& p, const std::vector<slurm::QueuedJob>& queue) {
  const auto* job = slurm::job_of(p, queue);
  const auto file = p.directory / "record.json";
  if (p.jobs.empty() || (job && job->is_live()) || !fs::exists(file)) return;
  auto record = nlohmann::ordered_json::parse(read_text(file), nullptr, /*allow_exceptions=*/false);
  if (!record.is_object() || (record.contains("accounting") && record["accounting"].value("job", "") == p.jobs.back())) return;
  auto accounting = slurm::ask_accounting(p.jobs.back());
  if (!accounting) return;
  record["accounting"] = {{"job", p.jobs.back()}};
  record["accounting"].update(*accounting);
  write_text(file, record.dump(2) + "\n");
}

int status(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::vector<std::string>>()->default_value({"runs"}, "runs"), "run directories, or folders that hold some");
  const auto values = parse(status_command, arguments, description, {{"run", -1}});
  if (!values) return static_cast<int>(ExitCode::done);

  std::vector<Progress> all;
  std::vector<std::string> ids;
  for (const auto& directory : run_directories((*values)["run"].as<std::vector<std::string>>())) {
    all.push_back(slurm::read_progress(directory));
    if (!all.back().is_finished()) ids.insert(ids.end(), all.back().jobs.begin(), all.back().jobs.end());
  }
  const auto queue = slurm::ask_queue(ids);
  if (!queue) std::cerr << "attune: Slurm cannot be asked (squeue is missing or gets no answer); this is what the files say\n";
  const auto known = queue.value_or(std::vector<slurm::QueuedJob>{});
  std::vector<Row> rows{{"RUN", "STATE", "JOB", "STEP", "LOSS", "TOKENS/S", "LEFT", "RESTARTS", ""}};
  for (const auto& progress : all) {
    rows.push_back(row_of(progress, known));
    keep_accounts(progress, known);
  }
  std::cout << text_table(rows);
  return static_cast<int>(ExitCode::done);
}

}  // namespace

const Command status_command{"status", "[RUN_DIR...]", "shows how runs do: in the queue, training, interrupted, done", status};

}  // namespace attune::program
