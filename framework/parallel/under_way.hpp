// Collectives that devices carry out while the host goes on: what the watchdog knows of them.
#pragma once
#include <c10/core/Event.h>

#include <functional>
#include <memory>
#include <string>

namespace attune::parallel {

/// Notes a collective of a device: its stream comes to it at `begin`, and has left it at `end`.
void note_on_device(std::shared_ptr<c10::Event> begin, std::shared_ptr<c10::Event> end);

/// Number of noted collectives that devices have come to and not left: they wait for other ranks.
int waiting_on_devices();

/// While it lives, `error` is asked, on any thread, whether the collectives of devices failed. It
/// returns one sentence, or nothing.
class ErrorSource {
 public:
  explicit ErrorSource(std::function<std::string()> error);
  ~ErrorSource();
  ErrorSource(const ErrorSource&) = delete;
  ErrorSource& operator=(const ErrorSource&) = delete;
};

/// The first error of the sources; empty without one.
std::string error_on_devices();

}  // namespace attune::parallel
