#include "prepare/clean.hpp"

#include <algorithm>

#include "core/names.hpp"
#include "prepare/plan.hpp"
#include "prepare/texts.hpp"
#include "text/unicode.hpp"

namespace attune {
namespace {

std::string normalized(const std::string& form, const std::string& text) {
  return text::normal_form(text, form == "nfkc" ? text::NormalForm::nfkc : text::NormalForm::nfc);
}

/// Without control characters (Unicode's category Cc) but tabs and line ends; CR LF and CR become
/// LF. Byte order marks go too.
std::string without_controls(const std::string& text) {
  std::string kept;
  kept.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    const auto c = text::next_code_point(text, at);
    const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xfeff;
    if (c == '\r') {
      kept += '\n';
      if (at < text.size() && text[at] == '\n') ++at;
    } else if (!control || c == '\n' || c == '\t') {
      kept.append(text, begin, at - begin);
    }
  }
  return kept;
}

/// Rewrites all texts; counts the record when one of them changed.
template <class Rewrite>
void rewrite(Record& record, Ledger& ledger, const std::string& what, Rewrite rewritten) {
  bool changed = false;
  for_each_text(record, [&](std::string& text) {
    auto other = rewritten(text);
    changed = changed || other != text;
    text = std::move(other);
  });
  if (changed) ledger.change(what, place_of(record));
}

}  // namespace

bool clean(const CleanOptions& options, Record& record, Ledger& ledger) {
  if (options.normalize != "none")
    rewrite(record, ledger, "converted to the normal form " + options.normalize,
            [&](const auto& text) { return normalized(options.normalize, text); });
  if (options.control_characters)
    rewrite(record, ledger, "control characters removed", without_controls);
  if (options.min_length == 0 && options.max_length == 0) return true;
  std::int64_t length = 0;
  for_each_text(record, [&](const std::string& text) {
    length += static_cast<std::int64_t>(text::count_code_points(text));
  });
  if (length < options.min_length) {
    ledger.drop(fmt::format("shorter than {} characters", options.min_length), record);
    return false;
  }
  if (options.max_length > 0 && length > options.max_length) {
    ledger.drop(fmt::format("longer than {} characters", options.max_length), record);
    return false;
  }
  return true;
}

void check_labels(const CleanOptions& options, const Record& record,
                  const std::vector<std::string>& names) {
  if (options.labels.empty()) return;
  for (const auto& name : names)
    if (const auto named = named_in(options.labels, name);
        std::ranges::find(options.labels, named) == options.labels.end())
      throw BadRow(
          "a label not listed in [clean]",
          fmt::format(
              "{}: the label '{}' is not listed in [clean] ({}){}; correct it, or add it there",
              place_of(record), name, joined(options.labels), did_you_mean(name, options.labels)));
}

}  // namespace attune
