// Fourth stage: the special tokens around a text.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace attune::text {

using PostProcessor = std::function<void(std::vector<std::int32_t>&)>;

/// null: nothing is added.
PostProcessor make_post_processor(const nlohmann::json& json);

}  // namespace attune::text
