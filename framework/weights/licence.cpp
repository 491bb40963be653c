#include "weights/licence.hpp"

#include <attune/error.hpp>

#include <algorithm>

#include "core/names.hpp"

namespace attune {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char letter) { return std::tolower(letter); });
  return text;
}

struct Terms {
  const char* begins;  // the licence's name begins with this
  const char* terms;
};
// The first that fits.
constexpr Terms known[] = {
    {"apache-2.0", "any use, also commercial; notices and a list of changes go with copies"},
    {"mit", "any use, also commercial; the notice goes with copies"},
    {"bsd", "any use, also commercial; the notice goes with copies"},
    {"cc0", "any use"},
    {"unlicense", "any use"},
    {"cc-by-nc", "no commercial use; the author is named"},
    {"cc-by-sa", "any use; the author is named, and what is made of it is under the same licence"},
    {"cc-by-nd",
     "the author is named; what is made of it, such as a tuned model, may not be passed on"},
    {"cc-by", "any use; the author is named"},
    {"gpl", "any use; what is passed on is under the same licence, with its sources"},
    {"agpl", "any use; what is passed on or served is under the same licence, with its sources"},
    {"llama",
     "Meta's community licence: an acceptable-use policy, 'Llama' in the name of what is passed "
     "on, own terms for the largest companies"},
    {"gemma", "Google's terms: a list of prohibited uses, which goes with what is passed on"},
    {"qwen-research", "no commercial use"},
    {"qwen", "Alibaba's licence: own terms for the largest companies"},
    {"openrail", "any use but those the licence lists, a list that goes with what is passed on"},
    {"bigscience", "any use but those the licence lists, a list that goes with what is passed on"},
    {"creativeml-openrail",
     "any use but those the licence lists, a list that goes with what is passed on"},
};

}  // namespace

std::string usage_terms(const std::string& licence) {
  const auto name = lower(licence);
  for (const auto& [begins, terms] : known)
    if (name.starts_with(begins)) return terms;
  return "";
}

void check_licence(const ModelFiles& files, const std::vector<std::string>& allowed) {
  if (allowed.empty()) return;
  if (files.licence.empty())
    fail(
        "{}: states no licence, and model.allowed_licences asks for one of: {}; put \"license: "
        "NAME\" between two lines --- at the top of its README.md once you know it",
        files.path.string(), joined(allowed));
  if (std::ranges::any_of(
          allowed, [&](const std::string& one) { return lower(one) == lower(files.licence); }))
    return;
  fail(
      "{}: is under the licence '{}', which is not among model.allowed_licences ({}): take another "
      "model, or add it there once you accept its terms",
      files.path.string(), files.licence, joined(allowed));
}

}  // namespace attune
