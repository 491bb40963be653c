// Module names as returned by named_modules(): "model.layers.0.self_attn.q_proj".
#pragma once
#include <attune/api.hpp>

#include <string>

ATTUNE_API_BEGIN
namespace attune {

/// Name within the parent module: "q_proj".
inline std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

}  // namespace attune
ATTUNE_API_END
