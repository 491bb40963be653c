// JSON files of model folders.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace attune::weights {

/// The object in a JSON file. Error that gives the byte where it stops being JSON.
nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace attune::weights
