#include "slurm/command.hpp"

#include <attune/error.hpp>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace attune::slurm {
namespace {

struct Pipe {
  int ends[2];
  Pipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0)
      throw Fault(fmt::format("no pipe could be made ({})", std::strerror(errno)));
  }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(int end) {
    if (ends[end] >= 0) ::close(ends[end]);
    ends[end] = -1;
  }
};

/// Both at once, so that neither pipe fills up while the other is waited for.
void read_all(Pipe& out, std::string& out_text, Pipe& err, std::string& err_text) {
  std::array<pollfd, 2> watched{{{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}}};
  std::string* texts[] = {&out_text, &err_text};
  char buffer[4096];
  for (int open = 2; open > 0;) {
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) return;
    for (std::size_t i = 0; i < watched.size(); ++i) {
      if (watched[i].fd < 0 || watched[i].revents == 0) continue;
      const auto count = ::read(watched[i].fd, buffer, sizeof buffer);
      if (count > 0)
        texts[i]->append(buffer, static_cast<std::size_t>(count));
      else if (count == 0 || errno != EINTR) {
        watched[i].fd = -1;
        --open;
      }
    }
  }
}

}  // namespace

std::vector<char*> argument_pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const auto& text : texts) all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

Said run_command(const std::vector<std::string>& command,
                 const std::vector<std::string>& environment) {
  Pipe out;
  Pipe err;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err.ends[1], 2);
  pid_t pid = 0;
  const auto arguments = argument_pointers(command);
  const auto variables = argument_pointers(environment);
  const int refused = ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(),
                                     environment.empty() ? environ : variables.data());
  posix_spawn_file_actions_destroy(&actions);
  Said said;
  if (refused != 0) {
    said.code = 127;
    said.err = fmt::format("{}: {}", command[0], std::strerror(refused));
    return said;
  }
  out.close_end(1);
  err.close_end(1);
  read_all(out, said.out, err, said.err);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  said.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return said;
}

bool is_installed(const std::string& program) {
  const char* path = std::getenv("PATH");
  for (const auto& folder : pieces_of(path ? path : "", ':'))
    if (::access((std::filesystem::path(folder) / program).c_str(), X_OK) == 0) return true;
  return false;
}

}  // namespace attune::slurm
