// Decoding of tokens to text.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace attune::text {

/// Rewrites the tokens in place. Their concatenation is the decoded text.
using Decoder = std::function<void(std::vector<std::string>&)>;

/// null: joins the tokens with spaces.
Decoder make_decoder(const nlohmann::json& json);

}  // namespace attune::text
