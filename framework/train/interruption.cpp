#include "train/interruption.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "core/signals.hpp"

namespace attune::train {
namespace {

/// Until the first checkpoint has told: bytes per second that a slow shared file system takes.
constexpr double cautious_speed = 100e6;
constexpr double margin = 3;  // seconds: to agree, to publish, to end
// no signal has these numbers
constexpr std::int64_t time_limit = 1000;
constexpr std::int64_t end_of_job = 1001;
constexpr std::int64_t lost_directory = 1002;

std::optional<double> seconds_of_job() {
  const char* end = std::getenv("SLURM_JOB_END_TIME");  // seconds since 1970
  if (!end) return {};
  return std::strtod(end, nullptr) -
         std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Interruption::Interruption(const config::TrainOptions& options, std::size_t state_bytes, Comm world)
    : world_(std::move(world)), save_(1 + static_cast<double>(state_bytes) / cautious_speed) {
  auto seconds = config::seconds_of(options.time_limit);
  if (const auto job = seconds_of_job(); job && (!seconds || *job < *seconds)) {
    seconds = job;
    ends_with_job_ = true;
  }
  if (seconds)
    end_ = Clock::now() +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*seconds));
}

bool Interruption::time_is_up() const {
  const std::chrono::duration<double> needed(1.5 * save_ + 2 * longest_work_ + margin);
  return end_ && Clock::now() + std::chrono::duration_cast<Clock::duration>(needed) >= *end_;
}

bool Interruption::wanted() const { return signal_received() != 0 || time_is_up(); }

bool Interruption::agree() {
  const std::int64_t no_time = !time_is_up() ? 0 : ends_with_job_ ? end_of_job : time_limit;
  reason_ = world_.max(signal_received() != 0 ? signal_received() : no_time);
  return happened();
}

void Interruption::directory_is_lost() { reason_ = lost_directory; }

std::string Interruption::reason() const {
  if (!happened()) return "";
  if (reason_ == lost_directory) return "the removal of its directory";
  if (reason_ == end_of_job) return "the end of the job";
  return reason_ == time_limit ? "the time limit" : fmt::format("signal {}", reason_);
}

}  // namespace attune::train
