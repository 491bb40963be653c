// RoPE scaling (context extension) in GGUF files.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "weights/gguf_config.hpp"

namespace attune::weights {

/// Sets rope_scaling in the config from the rope.scaling.* keys (linear, yarn), or from
/// rope_freqs.weight, the factor of each frequency in files of Llama 3.1 and later. Error for other
/// kinds of scaling.
void add_rope_scaling(const ArchitectureKeys& keys, std::int64_t head_dim, nlohmann::json& config);

/// The shortest decimal that converts to this float32: 1e-05, not 9.99999974e-06.
double shortest_decimal(float value);

}  // namespace attune::weights
