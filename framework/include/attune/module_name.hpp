// Names of modules, as named_modules() gives them: "model.layers.0.self_attn.q_proj".
#pragma once
#include <attune/api.hpp>

#include <string>

ATTUNE_API_BEGIN
namespace attune {

/// "q_proj": the name within its parent.
inline std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

}  // namespace attune
ATTUNE_API_END
