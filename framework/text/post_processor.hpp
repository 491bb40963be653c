// Fourth stage: the special tokens around a text.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

/// What the earlier stages made of a text.
struct Draft {
  Encoding encoding;
  std::vector<std::string> tokens;  // as they stand in the text or the vocabulary
};

struct PostProcessor {
  // the tokens put around the text
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;
  /// Takes the white space at their borders from the spans.
  std::function<void(Draft&, std::string_view text)> trim = [](Draft&, std::string_view) {};
};

/// null: nothing is added.
PostProcessor make_post_processor(const nlohmann::json& json);

}  // namespace attune::text
