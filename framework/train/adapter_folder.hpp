// Adapter folders: adapter_config.json and adapter_model.safetensors in PEFT's format, and
// base.json, which identifies the base model.
#pragma once
#include <attune/strategy.hpp>

#include <filesystem>
#include <map>
#include <string>

namespace attune::train {

using ExtraFiles = std::map<std::string, std::string>;  // texts by file name

/// Writes the folder atomically. Error if it exists and is not empty.
void write_adapter(const Adapter& adapter, const std::string& base_sha256,
                   const std::filesystem::path& folder, const ExtraFiles& extra = {});

/// Error if a file is missing or invalid.
Adapter read_adapter(const std::filesystem::path& folder);

/// SHA-256 of the base model's weights; "" if the folder does not record it, as in folders written
/// by PEFT.
std::string base_of_adapter(const std::filesystem::path& folder);

}  // namespace attune::train
