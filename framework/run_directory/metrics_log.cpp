#include <attune/error.hpp>
#include <attune/metrics_log.hpp>

#include <nlohmann/json.hpp>

#include "run_directory/json_lines.hpp"
#include "run_directory/metrics_line.hpp"
#include "run_directory/metrics_reader.hpp"
#include "run_directory/places.hpp"

namespace attune {
namespace fs = std::filesystem;

MetricsLog::MetricsLog(const fs::path& run_directory, std::uint64_t keep)
    : path_(run_directory::metrics_file(run_directory)) {
  if (fs::exists(path_)) {
    run_directory::check_metrics_version(run_directory);
    if (fs::file_size(path_) > keep) fs::resize_file(path_, keep);
    run_directory::end_last_line(path_);
    bytes_ = fs::file_size(path_);
  }
  file_.open(path_, std::ios::binary | std::ios::app);
  if (!file_) fail("{}: cannot be written", path_.string());
}

void MetricsLog::write(Event event, const Run& run) {
  if (!run_directory::is_logged(event)) return;
  const auto line = run_directory::line_of(event, run).text();
  file_ << line << std::flush;
  if (!file_) fail("{}: cannot be written; check for a full disk", path_.string());
  bytes_ += line.size();
}

}  // namespace attune
