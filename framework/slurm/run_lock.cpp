#include "slurm/run_lock.hpp"

#include <attune/error.hpp>
#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "core/host.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view prefix = "lock.";  // lock.1, lock.2, ...: the highest number is held, lower ones were left behind

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// When the process began, field 22 of /proc/PID/stat; empty when there is no such process, or it has ended and waits to be noticed. Its name,
/// in brackets, may hold anything.
std::string start_of(std::int64_t pid) {
  auto stat = first_line(fmt::format("/proc/{}/stat", pid));
  const auto name_end = stat.rfind(')');
  if (name_end == std::string::npos) return "";
  const auto fields = pieces_of(stat.substr(name_end + 2), ' ');
  return fields.size() > 19 && fields[0] != "Z" && fields[0] != "X" ? fields[19] : "";
}

int number_of_lock(const fs::path& file) {
  const auto name = file.filename().string();
  if (!name.starts_with(prefix)) return 0;
  const auto digits = name.substr(prefix.size());
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), ::isdigit) && digits.size() < 9 ? std::stoi(digits) : 0;
}

std::vector<std::pair<int, fs::path>> locks_of(const fs::path& directory) {
  std::vector<std::pair<int, fs::path>> locks;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    if (const int number = number_of_lock(entry.path())) locks.emplace_back(number, entry.path());
  std::sort(locks.begin(), locks.end());
  return locks;
}

/// No value when it went away meanwhile.
std::optional<Holder> read_holder(const fs::path& file) {
  try {
    return Holder::parse(read_text(file));
  } catch (const Error& error) {
    if (!fs::exists(file)) return std::nullopt;
    fail("{}: {}", file.string(), error.what());
  }
}

std::string in_use(const fs::path& directory, const Holder& holder) {
  return fmt::format("{}: is in use by {} since {}; wait for it, end it, or give this run another name", directory.string(), holder.name(), holder.since);
}

void refuse_unless_gone(const fs::path& directory, const fs::path& file, const Holder& me) {
  const auto holder = read_holder(file);
  if (!holder) return;
  switch (life_of(*holder, me)) {
    case Life::gone: return;
    case Life::alive: fail("{}", in_use(directory, *holder));
    case Life::unknown:
      fail("{}: was taken by {} at {}, and whether that still runs cannot be told from {}; when it does not, remove {}", directory.string(), holder->name(), holder->since, me.host, file.string());
  }
}

}  // namespace

Holder Holder::this_process() {
  std::error_code ignored;
  return {host_name(), first_line("/proc/sys/kernel/random/boot_id") + " " + fs::read_symlink("/proc/self/ns/pid", ignored).string(), ::getpid(), start_of(::getpid()), slurm_job(),
          fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))};
}

Holder Holder::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  try {
    return {json.at("host"), json.at("machine"), json.at("pid"), json.at("started"), json.at("job"), json.at("since")};
  } catch (const nlohmann::json::exception&) {
    fail("the lock file of a run is damaged ('{}'); when no job trains there, remove it", text);
  }
}

std::string Holder::text() const {
  return nlohmann::ordered_json{{"host", host}, {"machine", machine}, {"pid", pid}, {"started", started}, {"job", job}, {"since", since}}.dump() + "\n";
}

std::string Holder::name() const { return job.empty() ? fmt::format("process {} on {}", pid, host) : fmt::format("job {} (process {} on {})", job, pid, host); }

Life life_of(const Holder& holder, const Holder& me, const std::function<std::optional<std::vector<QueuedJob>>(const std::vector<std::string>&)>& ask) {
  if (holder.machine == me.machine && holder.host == me.host) return start_of(holder.pid) == holder.started ? Life::alive : Life::gone;
  if (holder.job.empty()) return Life::unknown;
  if (holder.job == me.job) return Life::gone;  // an earlier attempt of this job, which Slurm runs once at a time
  const auto jobs = ask({holder.job});
  if (!jobs) return Life::unknown;
  const auto is_it = [&](const QueuedJob& job) { return job.is_live() && (holder.job == job.id || holder.job == job.array_id + "_" + job.element); };
  return std::any_of(jobs->begin(), jobs->end(), is_it) ? Life::alive : Life::gone;
}

RunLock RunLock::take(const fs::path& directory) {
  fs::create_directories(directory);
  const auto me = Holder::this_process();
  const auto mine = directory / fmt::format(".lock.{}.{}", me.host, me.pid);
  write_text(mine, me.text());
  struct Removed {
    fs::path file;
    ~Removed() {
      std::error_code ignored;
      fs::remove(file, ignored);
    }
  } removed{mine};
  for (;;) {
    const auto left = locks_of(directory);
    for (const auto& [number, file] : left) refuse_unless_gone(directory, file, me);
    const int next = left.empty() ? 1 : left.back().first + 1;
    const auto file = directory / fmt::format("{}{}", prefix, next);
    if (::link(mine.c_str(), file.c_str()) != 0) {
      if (errno == EEXIST) continue;  // somebody was faster: look who
      fail("{}: cannot be locked ({}): its file system must have hard links", directory.string(), std::strerror(errno));
    }
    RunLock lock(file, me.text());
    // One that began between our look and our link.
    for (const auto& [number, other] : locks_of(directory))
      if (number != next) refuse_unless_gone(directory, other, me);
    for (const auto& [number, other] : left) fs::remove(other);
    return lock;
  }
}

RunLock::~RunLock() {
  std::error_code ignored;
  if (!file_.empty() && is_held()) fs::remove(file_, ignored);
}

bool RunLock::is_held() const {
  std::error_code unreadable;
  if (fs::status(file_, unreadable).type() == fs::file_type::not_found) return false;
  const auto line = first_line(file_);
  return line.empty() || line + "\n" == text_;
}

void refuse_live_holder(const fs::path& directory) {
  const auto holder = holder_of(directory);
  const auto me = Holder::this_process();
  if (holder && life_of(*holder, me) == Life::alive) fail("{}", in_use(directory, *holder));
}

std::optional<Holder> holder_of(const fs::path& directory) {
  const auto locks = locks_of(directory);
  return locks.empty() ? std::nullopt : read_holder(locks.back().second);
}

namespace {

bool holds_a_run(const fs::path& folder) {
  std::error_code unreadable;
  return fs::exists(folder / "run.toml", unreadable) || fs::exists(folder / "metrics.jsonl", unreadable) || fs::exists(folder / "record.json", unreadable);
}

/// What a run, a submission or a trial leaves in its directory.
bool is_of_a_run(const std::string& name) {
  static const std::set<std::string> names{"run.toml",  "record.json", "metrics.jsonl", "evaluation.json", "not_finite.jsonl", "adapter",
                                           "model",     "checkpoints", "job.sbatch",    "jobs",            "attempts",         "failures",
                                           "launches",  ".launched"};
  return names.contains(name) || (name.starts_with(".") && name.ends_with(".tmp"));
}

/// Of jobs, maybe of the one that this run is in.
bool is_log(const std::string& name) { return name == "trial.log" || (name.starts_with("slurm-") && name.ends_with(".log")); }

}  // namespace

std::vector<std::string> clear_run(const fs::path& directory) {
  std::vector<fs::path> of_a_run;
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const auto name = entry.path().filename().string();
    if (number_of_lock(entry.path()) != 0 || is_log(name) || name.starts_with(".lock.")) continue;
    if (is_of_a_run(name)) {
      of_a_run.push_back(entry.path());
      continue;
    }
    if (entry.is_directory() && holds_a_run(entry.path())) fail("{}: holds another run, {}, and is not replaced: give this run a name of its own", directory.string(), name);
    others.push_back(name);
  }
  for (const auto& path : of_a_run) fs::remove_all(path);
  std::sort(others.begin(), others.end());
  return others;
}

}  // namespace attune::slurm
