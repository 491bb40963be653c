// An adapter on the disk: adapter_config.json and adapter_model.safetensors as PEFT writes them,
// and base.json, which says what it is for.
#pragma once
#include <attune/strategy.hpp>

#include <filesystem>
#include <map>
#include <string>

namespace attune::train {

using ExtraFiles = std::map<std::string, std::string>;  // texts by file name

/// The folder appears whole or not at all. Error when it is there and not empty.
void write_adapter(const Adapter& adapter, const std::string& base_sha256,
                   const std::filesystem::path& folder, const ExtraFiles& extra = {});

/// Error when a file is missing or not what it should be.
Adapter read_adapter(const std::filesystem::path& folder);

/// sha256 of the base's weights; "" when the folder does not say, as with those that PEFT wrote.
std::string base_of_adapter(const std::filesystem::path& folder);

}  // namespace attune::train
