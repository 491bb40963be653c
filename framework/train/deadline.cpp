#include "train/deadline.hpp"

#include <cstdlib>

namespace attune::train {
namespace {

/// Until the first checkpoint has told: bytes per second that a slow shared file system takes.
constexpr double cautious_speed = 100e6;
constexpr double margin = 3;  // seconds: to agree, to publish, to end

std::optional<double> seconds_of_job() {
  const char* end = std::getenv("SLURM_JOB_END_TIME");  // seconds since 1970
  if (!end) return {};
  return std::strtod(end, nullptr) - std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Deadline::Deadline(const config::TrainOptions& options, std::size_t state_bytes) : save_(1 + static_cast<double>(state_bytes) / cautious_speed) {
  auto seconds = config::seconds_of(options.time_limit);
  if (const auto job = seconds_of_job()) seconds = std::min(*job, seconds.value_or(*job));
  if (seconds) end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*seconds));
}

bool Deadline::is_due() const {
  if (!end_) return false;
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1.5 * save_ + 2 * longest_work_ + margin)) >= *end_;
}

}  // namespace attune::train
