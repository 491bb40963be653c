// The chat template from a model's files.
#pragma once
#include <attune/api.hpp>

#include <map>
#include <string>

ATTUNE_API_BEGIN
namespace attune {

struct ChatSource {
  std::string jinja;  // main template; "" if the model has none
  // separate template for conversations with tools; "" if the model has none
  std::string tool_use = {};
  std::map<std::string, std::string>
      tokens;  // special tokens the template may use: {"bos_token", "<s>"}
};

}  // namespace attune
ATTUNE_API_END
