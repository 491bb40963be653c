// JSON Lines logs, readable during writing and after a crash. The last line may be truncated, and a
// machine crash may leave zero bytes in place of lines.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace attune::run_directory {

/// Invalid lines of a log, which are skipped.
struct LogDamage {
  std::int64_t lines = 0;
  std::uint64_t first_byte = 0;  // offset of the first of them

  void add(std::uint64_t byte);
  /// "metrics.jsonl is damaged at byte 812 (2 lines are left out)"; "" if there are none.
  std::string sentence(const std::filesystem::path& log) const;
};

/// Receives an object of the log. Returns false if it is not a valid line.
using TakeObject = std::function<bool(const nlohmann::json& object)>;

/// Passes the last lines of a log, some hundred, to `take` in order. Reads further back until
/// `take` has accepted one. An incomplete last line without a line feed is skipped: it is still
/// being written, or was when the run ended.
LogDamage read_newest_lines(const std::filesystem::path& log, const TakeObject& take);

/// The first line; null if there is none yet; a discarded value (json::is_discarded) if it is
/// damaged.
nlohmann::json read_first_line(const std::filesystem::path& log);

/// Appends a line, after terminating a truncated one. Error if the file cannot be written.
void append_line(const std::filesystem::path& log, const nlohmann::ordered_json& object);

/// Removes a truncated last line; a complete one gets its line feed. Call it before appending to an
/// existing log.
void end_last_line(const std::filesystem::path& log);

}  // namespace attune::run_directory
