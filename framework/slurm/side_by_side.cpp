#include "slurm/side_by_side.hpp"

#include <attune/error.hpp>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "core/signals.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {
namespace {

/// srun and mpirun hand SIGUSR1 on to their ranks; at SIGTERM or SIGINT they would kill them.
constexpr int to_save = SIGUSR1;
/// One that comes while a launcher is starting its ranks is lost, so that it is sent again.
constexpr std::chrono::seconds between_signals{2};

/// This process's variables, with those of the task in their places.
std::vector<std::string> with_variables(const std::vector<std::string>& more) {
  std::map<std::string, std::string> all;
  const auto add = [&](const std::string& text) { all[text.substr(0, text.find('='))] = text; };
  for (char** variable = environ; *variable; ++variable) add(*variable);
  for (const auto& text : more) add(text);
  std::vector<std::string> texts;
  for (const auto& [name, text] : all) texts.push_back(text);
  return texts;
}

/// In a process group of its own, so that a Ctrl-C comes once, from us.
pid_t start(const Task& task) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, task.log.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0666);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  const auto variables = with_variables(task.environment);
  const auto arguments = argument_pointers(task.command);
  const auto environment = argument_pointers(variables);
  pid_t pid = 0;
  const int refused = ::posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments.data(),
                                     environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (refused != 0)
    fail("{}: cannot be started ({}): it must be in PATH", task.command[0], std::strerror(refused));
  return pid;
}

}  // namespace

void run_side_by_side(std::size_t slots, const std::function<bool(Task&)>& next,
                      const std::function<void(std::size_t, int)>& ended) {
  std::map<pid_t, std::size_t> running;
  std::size_t begun = 0;
  std::optional<std::chrono::steady_clock::time_point> passed_on;
  for (;;) {
    Task task;
    while (running.size() < slots && signal_received() == 0 && next(task)) {
      running[start(task)] = begun++;
      task = {};
    }
    if (running.empty()) return;
    const auto now = std::chrono::steady_clock::now();
    if (signal_received() != 0 && (!passed_on || now - *passed_on >= between_signals)) {
      passed_on = now;
      for (const auto& [pid, number] : running) ::kill(pid, to_save);
    }
    int status = 0;
    const auto pid = ::waitpid(-1, &status, WNOHANG);
    const auto found = running.find(pid);
    if (pid <= 0 || found == running.end()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    const auto number = found->second;
    running.erase(found);
    ended(number, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
}

}  // namespace attune::slurm
