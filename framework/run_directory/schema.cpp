#include "run_directory/schema.hpp"

#include <attune/error.hpp>

#include <limits>

namespace attune::run_directory {

void add_format(nlohmann::ordered_json& object, const Format& format) {
  object["format"] = format.name;
  object["version"] = format.version;
}

Fit fit_of(const nlohmann::json& object, const Format& format) {
  const auto name = object.find("format");
  const bool is_other = name != object.end() && *name != nlohmann::json(format.name);
  if (is_other) return Fit::other_format;
  const auto version = object.find("version");
  if (version == object.end()) return Fit::fits;
  const bool is_version = version->is_number_integer() && *version >= 1;
  if (!is_version) return Fit::no_version;
  return *version > format.version ? Fit::newer : Fit::fits;
}

void refuse_newer(const nlohmann::json& object, const Format& format, const std::string& file) {
  if (fit_of(object, format) != Fit::newer) return;
  fail(
      "{}: has version {} of {}, but this Attune reads up to version {}: use the Attune that wrote "
      "it, or a newer one",
      file, object["version"].dump(), format.name, format.version);
}

void check_format(const nlohmann::json& object, const Format& format, const std::string& file) {
  const auto fit = fit_of(object, format);
  const auto text = [&](const char* key) {
    return object[key].dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  };
  if (fit == Fit::other_format)
    fail("{}: has the format {}, but {} is needed", file, text("format"), format.name);
  if (fit == Fit::no_version) fail("{} is damaged: its version is {}", file, text("version"));
  refuse_newer(object, format, file);
}

nlohmann::json parse_object(std::string_view text, const Format& format, const std::string& file) {
  auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail("{} is damaged: it is not a JSON object", file);
  check_format(json, format, file);
  return json;
}

std::string json_line(const nlohmann::ordered_json& object) {
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

double number_of(const nlohmann::json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

}  // namespace attune::run_directory
