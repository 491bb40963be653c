#include "run_directory/lock.hpp"

#include <attune/error.hpp>
#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/files.hpp"
#include "core/host.hpp"
#include "core/process.hpp"
#include "run_directory/schema.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
namespace {

// lock.1, lock.2, ...: the highest number is held, lower ones were left behind
constexpr std::string_view prefix = "lock.";

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// When the process began; empty when there is no such process, or it has ended and waits to be
/// noticed.
std::string start_of(std::int64_t pid) {
  const auto status = process_status(pid);
  return status && !status->has_ended() ? status->started : "";
}

int number_of_lock(const fs::path& file) {
  const auto name = file.filename().string();
  if (!name.starts_with(prefix)) return 0;
  const auto digits = name.substr(prefix.size());
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), ::isdigit) &&
                 digits.size() < 9
             ? std::stoi(digits)
             : 0;
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
  return fmt::format(
      "{}: is in use by {} since {}; wait for it, end it, or give this run another name",
      directory.string(), holder.name(), holder.since);
}

void refuse_unless_gone(const fs::path& directory, const fs::path& file, const Holder& me,
                        const AskJob& is_live) {
  const auto holder = read_holder(file);
  if (!holder) return;
  switch (life_of(*holder, me, is_live)) {
    case Life::gone: return;
    case Life::alive: fail("{}", in_use(directory, *holder));
    case Life::unknown:
      fail(
          "{}: was locked by {} at {}; {} cannot check whether that process still runs; if it does "
          "not, remove {}",
          directory.string(), holder->name(), holder->since, me.host, file.string());
  }
}

}  // namespace

Holder Holder::this_process() {
  std::error_code ignored;
  const auto pid_namespace = fs::read_symlink("/proc/self/ns/pid", ignored).string();
  Holder me;
  me.host = host_name();
  me.machine = first_line("/proc/sys/kernel/random/boot_id") + " " + pid_namespace;
  me.pid = ::getpid();
  me.started = start_of(me.pid);
  me.job = slurm_job();
  me.since = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  return me;
}

Holder Holder::parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) check_format(json, lock_format, "the lock file of a run");
  try {
    return {json.at("host"),    json.at("machine"), json.at("pid"),
            json.at("started"), json.at("job"),     json.at("since")};
  } catch (const nlohmann::json::exception&) {
    fail("the lock file of a run is damaged ('{}'); remove it if no job trains there", text);
  }
}

std::string Holder::text() const {
  nlohmann::ordered_json json{{"host", host}, {"machine", machine}, {"pid", pid}};
  json.update({{"started", started}, {"job", job}, {"since", since}});
  add_format(json, lock_format);
  return json_line(json);
}

std::string Holder::name() const {
  const auto process = fmt::format("process {} on {}", pid, host);
  return job.empty() ? process : fmt::format("job {} ({})", job, process);
}

Life life_of(const Holder& holder, const Holder& me, const AskJob& is_live) {
  if (holder.machine == me.machine && holder.host == me.host)
    return start_of(holder.pid) == holder.started ? Life::alive : Life::gone;
  if (holder.job.empty()) return Life::unknown;
  // an earlier attempt of this job, which Slurm runs once at a time
  if (holder.job == me.job) return Life::gone;
  const auto live = is_live(holder.job);
  if (!live) return Life::unknown;
  return *live ? Life::alive : Life::gone;
}

RunLock RunLock::take(const fs::path& directory, const AskJob& is_live) {
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
    for (const auto& [number, file] : left) refuse_unless_gone(directory, file, me, is_live);
    const int next = left.empty() ? 1 : left.back().first + 1;
    const auto file = directory / fmt::format("{}{}", prefix, next);
    if (::link(mine.c_str(), file.c_str()) != 0) {
      if (errno == EEXIST) continue;  // somebody was faster: look who
      fail("{}: cannot be locked ({}): its file system must support hard links", directory.string(),
           std::strerror(errno));
    }
    RunLock lock(file, me.text());
    // One that began between our look and our link.
    for (const auto& [number, other] : locks_of(directory))
      if (number != next) refuse_unless_gone(directory, other, me, is_live);
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

void refuse_live_holder(const fs::path& directory, const AskJob& is_live) {
  const auto holder = holder_of(directory);
  const auto me = Holder::this_process();
  if (holder && life_of(*holder, me, is_live) == Life::alive)
    fail("{}", in_use(directory, *holder));
}

std::optional<Holder> holder_of(const fs::path& directory) {
  const auto locks = locks_of(directory);
  return locks.empty() ? std::nullopt : read_holder(locks.back().second);
}

bool is_of_lock(const std::string& name) {
  return number_of_lock(name) != 0 || name.starts_with(".lock.");
}

}  // namespace attune::run_directory
