// Fourth stage: special tokens around a text.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"

namespace attune::text {

/// Result of the earlier stages.
struct Draft {
  Encoding encoding;
  std::vector<std::string> tokens;  // as in the text or the vocabulary
};

struct PostProcessor {
  // tokens added around the text
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;
  /// Removes white space at the borders of spans.
  std::function<void(Draft&, std::string_view text)> trim = [](Draft&, std::string_view) {};
};

/// null: nothing is added.
PostProcessor make_post_processor(const nlohmann::json& json);

}  // namespace attune::text
