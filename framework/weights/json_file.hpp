// Reader for JSON files in model folders.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace attune::weights {

/// Parses a JSON object. Error for invalid JSON, with the byte offset.
nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace attune::weights
