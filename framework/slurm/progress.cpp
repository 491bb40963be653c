#include "slurm/progress.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "slurm/command.hpp"
#include "slurm/submission.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

constexpr std::streamoff tail_bytes = 64 << 10;  // some hundred steps

nlohmann::json read_json(const std::string& text) { return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false); }

/// Error when it is there and cannot be read.
nlohmann::json json_file(const fs::path& path) {
  if (!fs::exists(path)) return {};
  auto json = read_json(read_text(path));
  if (!json.is_object()) fail("{} is damaged", path.filename().string());
  return json;
}

/// The `evaluation` of run_begin is the base's, or repeats an earlier one. JSON has no NaN and no infinity: the log holds null for them.
void read_evaluation(Progress& p, const nlohmann::json& event) {
  if (!event.is_object() || event.value("event", "") != "evaluated") return;
  p.evaluation.clear();
  p.not_finite.clear();
  p.evaluated_step = event.value("step", std::int64_t{0});
  const auto metrics = event.value("evaluation", nlohmann::json::object());
  for (const auto& [name, value] : metrics.items())
    if (value.is_number()) p.evaluation[name] = value.get<double>();
    else p.not_finite.push_back(name);
}

/// The events at the end of a log, the first of which may be cut off: it is left out.
std::vector<nlohmann::json> newest_events(const fs::path& log) {
  if (!fs::exists(log)) return {};
  std::ifstream file(log, std::ios::binary | std::ios::ate);
  if (!file) fail("{} cannot be read ({})", log.filename().string(), std::strerror(errno));
  const auto from = std::max<std::streamoff>(0, static_cast<std::streamoff>(file.tellg()) - tail_bytes);
  file.seekg(from);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<nlohmann::json> events;
  for (const auto& line : lines_of(text))
    if (auto event = read_json(line); event.is_object()) events.push_back(std::move(event));
  return events;
}

void read_events(Progress& p, const std::vector<nlohmann::json>& events) {
  const nlohmann::json *first = nullptr, *last = nullptr;
  for (const auto& event : events) {
    p.step = std::max(p.step, event.value("step", std::int64_t{0}));
    p.seconds = std::max(p.seconds, event.value("seconds", 0.0));
    p.steps = std::max(p.steps, event.value("steps", std::int64_t{0}));
    read_evaluation(p, event);
    if (event.value("event", "") != "step_end") continue;
    if (!first || event["step"] < (*first)["step"]) first = &event;
    last = &event;
  }
  if (!last) return;
  p.step = last->value("step", std::int64_t{0});
  if (last->at("loss").is_number()) p.loss = last->at("loss").get<double>();
  p.tokens_per_second = last->value("tokens_per_second", 0.0);
  const auto between = last->at("step").get<std::int64_t>() - first->at("step").get<std::int64_t>();
  if (between > 0) p.seconds_per_step = (last->value("seconds", 0.0) - first->value("seconds", 0.0)) / static_cast<double>(between);
}

/// What the first line says; a long log does not show its beginning in its end.
void read_beginning(Progress& p, const fs::path& log) {
  std::ifstream file(log);
  std::string line;
  std::getline(file, line);
  const auto event = read_json(line);
  if (!event.is_object()) return;
  if (p.steps == 0) p.steps = event.value("steps", std::int64_t{0});
  p.trainable_parameters = event.value("trainable_parameters", std::int64_t{0});
}

/// Between two rungs of a sweep there may be many steps.
void search_evaluation(Progress& p, const fs::path& log) {
  std::ifstream file(log);
  std::string newest;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("{\"event\":\"evaluated\"")) newest = std::move(line);
  read_evaluation(p, read_json(newest));
}

/// The step of the last line is the one that the run ended at, or skipped; a skipped one is in the log of steps too.
bool has_diverged(const fs::path& notes, std::int64_t step) {
  const auto events = newest_events(notes);
  return !events.empty() && events.back().value("step", std::int64_t{0}) > step;
}

void read_history(Progress& p, const nlohmann::json& record) {
  if (!record.is_object()) return;
  for (const auto& entry : record.value("history", nlohmann::json::array())) {
    p.last = entry.value("what", "");
    p.note = entry.value("note", "");
    p.starts += p.last == "started" || p.last == "resumed";
  }
  p.run_file = record.value("run_file", "");
  const auto job = record.value("slurm_job", "");
  if (!job.empty() && std::find(p.jobs.begin(), p.jobs.end(), job) == p.jobs.end()) p.jobs.push_back(job);
}

/// Does what may fail of one file, so that the others are read all the same. The first problem is kept.
template <class Read>
void read_part(Progress& p, const Read& read) {
  std::string problem;
  try {
    read();
  } catch (const fs::filesystem_error& error) {
    problem = fmt::format("{} cannot be read ({})", error.path1().filename().string(), error.code().message());
  } catch (const nlohmann::json::exception& error) {
    problem = fmt::format("a file of the run is damaged ({})", error.what());
  } catch (const std::exception& error) {
    problem = error.what();
  }
  if (p.problem.empty()) p.problem = problem;
}

}  // namespace

Progress read_progress(const fs::path& directory) {
  Progress p;
  p.directory = directory;
  const auto metrics = directory / "metrics.jsonl";
  read_part(p, [&] {
    if (fs::exists(directory)) static_cast<void>(fs::directory_iterator(directory));
  });
  read_part(p, [&] { p.jobs = submitted_jobs(directory); });
  read_part(p, [&] { read_history(p, json_file(directory / "record.json")); });
  read_part(p, [&] { read_events(p, newest_events(metrics)); });
  read_part(p, [&] { read_beginning(p, metrics); });
  read_part(p, [&] { p.diverged = !p.is_finished() && has_diverged(directory / "not_finite.jsonl", p.step); });
  read_part(p, [&] { p.holder = holder_of(directory); });
  return p;
}

Progress read_whole_progress(const fs::path& directory) {
  auto p = read_progress(directory);
  if (!p.evaluated_step) search_evaluation(p, directory / "metrics.jsonl");
  return p;
}

bool is_finished(const fs::path& directory) { return read_progress(directory).is_finished(); }

const QueuedJob* job_of(const Progress& progress, const std::vector<QueuedJob>& queue) {
  for (auto id = progress.jobs.rbegin(); id != progress.jobs.rend(); ++id)
    for (const auto& job : queue)
      if (*id == job.id || *id == job.array_id + "_" + job.element) return &job;
  return nullptr;
}

std::string state_of(const Progress& progress, const std::vector<QueuedJob>& queue) {
  if (progress.is_finished()) return "done";
  const auto* job = job_of(progress, queue);
  const bool is_live = job && job->is_live();
  if (is_live && job->state == "PENDING") return progress.starts > 0 ? "requeued" : "queued";
  const auto same = [&](const std::vector<std::string>&) { return std::optional(queue); };
  if (progress.holder && life_of(*progress.holder, Holder::this_process(), same) == Life::alive) return "training";
  const bool is_ending = is_live && job->state == "COMPLETING";  // its ranks are gone, or going
  if (is_live && !is_ending) return "starting";
  const bool nothing_known = progress.last.empty() && progress.jobs.empty() && progress.step == 0;
  if (nothing_known && !progress.problem.empty()) return "unreadable";
  if (progress.last.empty()) return progress.jobs.empty() ? "new" : "unstarted";
  return progress.last == "interrupted" ? "interrupted" : "failed";
}

bool is_under_way(const std::string& state) {
  return state == "queued" || state == "requeued" || state == "starting" || state == "training";
}

}  // namespace attune::slurm
