// A model's own chat template, as its files hold it.
#pragma once
#include <attune/api.hpp>

#include <map>
#include <string>

ATTUNE_API_BEGIN
namespace attune {

struct ChatSource {
  std::string jinja;  // "": there is none
  // of models that have another template for conversations with tools
  std::string tool_use = {};
  std::map<std::string, std::string> tokens;  // what a template may name: {"bos_token", "<s>"}
};

}  // namespace attune
ATTUNE_API_END
