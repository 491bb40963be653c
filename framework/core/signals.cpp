#include "core/signals.hpp"

#include <csignal>

namespace attune {
namespace {

volatile std::sig_atomic_t received = 0;

}  // namespace

void note_signal(int signal) { received = signal; }

void watch_signals() {
  struct sigaction action{};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

void let_writes_fail() { std::signal(SIGXFSZ, SIG_IGN); }

int signal_received() { return received; }

}  // namespace attune
