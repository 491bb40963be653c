// Logs of one JSON object a line, read while they are written and after a crash: the last line may
// be cut off, and a crash of the machine may leave zero bytes where lines were.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace attune::run_directory {

/// Lines that are left out because they are not what the log is made of.
struct LogDamage {
  std::int64_t lines = 0;
  std::uint64_t first_byte = 0;  // of the first of them

  void add(std::uint64_t byte);
  /// "metrics.jsonl is damaged at byte 812 (2 lines are left out)"; "" when there is none.
  std::string sentence(const std::filesystem::path& log) const;
};

/// Takes an object of the log; false when it is none of its lines.
using TakeObject = std::function<bool(const nlohmann::json& object)>;

/// Gives the lines at the end of a log, some hundred of them, in their order. It looks further back
/// until `take` has taken one. A last line without a line feed that is no JSON yet is passed over:
/// it is being written, or was when the run ended.
LogDamage read_newest_lines(const std::filesystem::path& log, const TakeObject& take);

/// The first line, null when there is none yet. A discarded value (json::is_discarded) when it is
/// damaged.
nlohmann::json read_first_line(const std::filesystem::path& log);

/// Appends a line, and ends one that was cut off before. Error when it cannot be written.
void append_line(const std::filesystem::path& log, const nlohmann::ordered_json& object);

/// What is behind the last line feed goes, unless it is a whole line, which gets its line feed. For
/// a log that is appended to again.
void end_last_line(const std::filesystem::path& log);

}  // namespace attune::run_directory
