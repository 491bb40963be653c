#include "train/signals.hpp"

#include <csignal>

namespace attune::train {
namespace {

volatile std::sig_atomic_t received = 0;
void note(int signal) { received = signal; }

}  // namespace

void watch_signals() {
  struct sigaction action{};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

int signal_received() { return received; }

}  // namespace attune::train
