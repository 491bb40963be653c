// First stage: the text is normalised before it is cut.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace attune::text {

/// Rewrites well-formed UTF-8 in place.
using Normalizer = std::function<void(std::string&)>;

/// null: nothing is changed.
Normalizer make_normalizer(const nlohmann::json& json);

}  // namespace attune::text
