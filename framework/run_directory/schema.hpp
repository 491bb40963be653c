// Formats of the files in a run directory, with their versions. A version is raised when a reader
// of the one before would misread the file; a key that is added raises nothing, and readers pass
// over keys that they do not know.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace attune::run_directory {

struct Format {
  std::string_view name;
  int version;  // that this Attune writes, and the newest that it reads
};

inline constexpr Format record_format{"attune-record", 1};
inline constexpr Format metrics_format{"attune-metrics", 1};
inline constexpr Format evaluation_format{"attune-evaluation", 1};
inline constexpr Format lock_format{"attune-lock", 1};

/// Keys `format` and `version`.
void add_format(nlohmann::ordered_json& object, const Format& format);

/// Whether the object is of the format. One that gives neither format nor version is of version 1:
/// some files of earlier Attunes.
enum class Fit { fits, other_format, no_version, newer };
Fit fit_of(const nlohmann::json& object, const Format& format);

/// Error when the object is of a newer version. `file` names it in the message.
void refuse_newer(const nlohmann::json& object, const Format& format, const std::string& file);

/// Error when the object is of another format or of a newer version.
void check_format(const nlohmann::json& object, const Format& format, const std::string& file);

/// The object that a JSON text is. Error naming the file when it is none, or not of that format.
nlohmann::json parse_object(std::string_view text, const Format& format, const std::string& file);

/// One line of JSON. NaN and infinity become null, and bytes that are no UTF-8 become U+FFFD.
std::string json_line(const nlohmann::ordered_json& object);

/// The number, or NaN for null, which stands for NaN and infinity: JSON has neither. Error
/// (nlohmann's) for anything else.
double number_of(const nlohmann::json& value);

}  // namespace attune::run_directory
