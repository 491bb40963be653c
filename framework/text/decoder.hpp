// The way back: from tokens to text.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace attune::text {

/// Rewrites the tokens so that the text is all of them joined.
using Decoder = std::function<void(std::vector<std::string>&)>;

/// null: the tokens with spaces between.
Decoder make_decoder(const nlohmann::json& json);

}  // namespace attune::text
