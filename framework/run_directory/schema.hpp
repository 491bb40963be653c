// Formats and versions of the files in a run directory. A version is raised if readers of the
// previous one would misread the file. New keys do not raise it, because readers ignore unknown
// keys.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace attune::run_directory {

struct Format {
  std::string_view name;
  int version;  // written by this Attune, and the newest that it reads
};

inline constexpr Format record_format{"attune-record", 1};
inline constexpr Format metrics_format{"attune-metrics", 1};
inline constexpr Format evaluation_format{"attune-evaluation", 1};
inline constexpr Format lock_format{"attune-lock", 1};

/// Adds the keys `format` and `version`.
void add_format(nlohmann::ordered_json& object, const Format& format);

/// Whether the object is of the format. An object with neither key counts as version 1: some files
/// of earlier versions lack them.
enum class Fit { fits, other_format, no_version, newer };
Fit fit_of(const nlohmann::json& object, const Format& format);

/// Error if the object is of a newer version. `file` names it in the message.
void refuse_newer(const nlohmann::json& object, const Format& format, const std::string& file);

/// Error if the object is of another format or of a newer version.
void check_format(const nlohmann::json& object, const Format& format, const std::string& file);

/// Parses a JSON object. Error naming the file if it is invalid or of another format.
nlohmann::json parse_object(std::string_view text, const Format& format, const std::string& file);

/// One line of JSON. NaN and infinity become null; invalid UTF-8 becomes U+FFFD.
std::string json_line(const nlohmann::ordered_json& object);

/// The number, or NaN for null, which represents NaN and infinity. nlohmann's exception for other
/// types.
double number_of(const nlohmann::json& value);

}  // namespace attune::run_directory
