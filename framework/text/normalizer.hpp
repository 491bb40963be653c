// First stage: normalisation of the text.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "text/aligned.hpp"

namespace attune::text {

/// Rewrites well-formed UTF-8 in place.
using Normalizer = std::function<void(AlignedText&)>;

/// null: no normalisation.
Normalizer make_normalizer(const nlohmann::json& json);

/// SentencePiece's normalisation, compiled to a trie ("precompiled_charsmap", base64).
Normalizer make_precompiled(const nlohmann::json& json);

}  // namespace attune::text
