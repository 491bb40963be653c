#include "train/interruption.hpp"

#include <fmt/core.h>

#include <cstdlib>

#include "core/signals.hpp"

namespace attune::train {
namespace {

/// Until the first checkpoint has told: bytes per second that a slow shared file system takes.
constexpr double cautious_speed = 100e6;
constexpr double margin = 3;  // seconds: to agree, to publish, to end
constexpr std::int64_t time_limit = 1000;  // no signal has this number

std::optional<double> seconds_of_job() {
  const char* end = std::getenv("SLURM_JOB_END_TIME");  // seconds since 1970
  if (!end) return {};
  return std::strtod(end, nullptr) - std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Interruption::Interruption(const config::TrainOptions& options, std::size_t state_bytes, Comm comm)
    : comm_(std::move(comm)), save_(1 + static_cast<double>(state_bytes) / cautious_speed) {
  auto seconds = config::seconds_of(options.time_limit);
  if (const auto job = seconds_of_job()) seconds = std::min(*job, seconds.value_or(*job));
  if (seconds) end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*seconds));
}

bool Interruption::time_is_up() const {
  const std::chrono::duration<double> needed(1.5 * save_ + 2 * longest_work_ + margin);
  return end_ && Clock::now() + std::chrono::duration_cast<Clock::duration>(needed) >= *end_;
}

bool Interruption::wanted() const { return signal_received() != 0 || time_is_up(); }

bool Interruption::agree() {
  reason_ = comm_.max(signal_received() != 0 ? signal_received() : time_is_up() ? time_limit : 0);
  return happened();
}

std::string Interruption::reason() const {
  if (!happened()) return "";
  return reason_ == time_limit ? "the time limit" : fmt::format("signal {}", reason_);
}

}  // namespace attune::train
