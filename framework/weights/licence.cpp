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
    {"apache-2.0",
     "any use, including commercial; copies must include the notices and a list of changes"},
    {"mit", "any use, including commercial; copies must include the notice"},
    {"bsd", "any use, including commercial; copies must include the notice"},
    {"cc0", "any use"},
    {"unlicense", "any use"},
    {"cc-by-nc", "no commercial use; attribution required"},
    {"cc-by-sa", "any use; attribution required, and derivatives must have the same licence"},
    {"cc-by-nd",
     "attribution required; derivatives, such as a tuned model, may not be redistributed"},
    {"cc-by", "any use; attribution required"},
    {"gpl", "any use; redistribution only under the same licence, with sources"},
    {"agpl",
     "any use; redistribution or network service only under the same licence, with sources"},
    {"llama",
     "Meta's community licence: acceptable-use policy, 'Llama' in the name of redistributed "
     "models, separate terms for the largest companies"},
    {"gemma",
     "Google's terms: a list of prohibited uses, which also applies to redistributed models"},
    {"qwen-research", "no commercial use"},
    {"qwen", "Alibaba's licence: separate terms for the largest companies"},
    {"openrail",
     "any use except those that the licence lists; the list also applies to redistributed models"},
    {"bigscience",
     "any use except those that the licence lists; the list also applies to redistributed models"},
    {"creativeml-openrail",
     "any use except those that the licence lists; the list also applies to redistributed models"},
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
        "{}: states no licence, but model.allowed_licences requires one of: {}; once you know it, "
        "put \"license: NAME\" between two lines --- at the top of its README.md",
        files.path.string(), joined(allowed));
  if (std::ranges::any_of(
          allowed, [&](const std::string& one) { return lower(one) == lower(files.licence); }))
    return;
  fail(
      "{}: has the licence '{}', which is not among model.allowed_licences ({}): use another "
      "model, or add the licence once you accept its terms",
      files.path.string(), files.licence, joined(allowed));
}

}  // namespace attune
