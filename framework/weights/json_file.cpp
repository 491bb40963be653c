#include "weights/json_file.hpp"

#include <attune/error.hpp>

#include <nlohmann/json.hpp>

#include "core/files.hpp"

namespace attune::weights {

nlohmann::json read_json(const std::filesystem::path& path) {
  try {
    auto value = nlohmann::json::parse(read_text(path));
    if (!value.is_object()) fail("{}: must hold a JSON object ({{...}}), but holds {}", path.string(), value.type_name());
    return value;
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: is not valid JSON from byte {} on; fetch the file again", path.string(), error.byte);
  }
}

}  // namespace attune::weights
