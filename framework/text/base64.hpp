#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace attune::text {

std::string to_base64(std::string_view bytes);
/// Absent if the text is not valid base64.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace attune::text
