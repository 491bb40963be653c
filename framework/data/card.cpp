#include "data/card.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/files.hpp"
#include "core/names.hpp"

namespace attune {
namespace {

/// Samples first .. first + count - 1, a few thousand at a time.
template <class Use>
void for_each_sample(const Split& split, Use use) {
  constexpr std::int64_t at_once = 4096;
  for (std::int64_t first = 0; first < split.size(); first += at_once) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(at_once, split.size() - first)));
    std::iota(rows.begin(), rows.end(), first);
    for (const auto& sample : split.read(rows)) use(sample);
  }
}

bool has_column(const Split& split, const std::string& name) {
  const auto names = split.columns();
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// "4 / 17 / 45 / 128"
std::string spread(std::vector<std::int64_t> lengths) {
  std::sort(lengths.begin(), lengths.end());
  const auto at = [&](std::size_t percent) { return lengths[(lengths.size() * percent + 99) / 100 - 1]; };
  return fmt::format("{} / {} / {} / {}", lengths.front(), at(50), at(95), lengths.back());
}

std::string trained_share(const Split& split) {
  std::int64_t trained = 0, all = 0;
  for_each_sample(split, [&](const Sample& sample) {
    trained += sample.at("loss_mask").sum().item<std::int64_t>();
    all += sample.at("loss_mask").numel();
  });
  return fmt::format(", {:.1f} % of tokens trained on", 100.0 * static_cast<double>(trained) / static_cast<double>(std::max<std::int64_t>(1, all)));
}

std::string split_lines(const std::string& name, const Split& split) {
  std::string text = fmt::format("  {:<12}{} samples", name, split.size());
  if (has_column(split, "loss_mask")) text += trained_share(split);
  text += "\n";
  for (const auto& column : split.columns()) {
    if (!split.ragged(column) || column == "loss_mask") continue;
    const auto lengths = split.lengths(column);
    text += fmt::format("    {:<10}{} in all; shortest / median / 95 % / longest: {}\n", column,
                        std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}), spread(lengths));
  }
  return text + fmt::format("    sha256    {}\n", split.sha256());
}

std::string label_lines(const DataFile& file) {
  const auto labels = file.labels();
  std::string text;
  for (const auto& name : file.splits()) {
    const Split& split = file.split(name);
    if (labels.empty() || !has_column(split, "label")) continue;
    std::vector<std::int64_t> counts(labels.size());
    for_each_sample(split, [&](const Sample& sample) { ++counts.at(static_cast<std::size_t>(sample.at("label").item<std::int64_t>())); });
    std::vector<std::size_t> order(labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return counts[a] > counts[b]; });
    constexpr std::size_t shown = 10;
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < std::min(order.size(), shown); ++i)
      parts.push_back(fmt::format("{} {:.1f} %", labels[order[i]], 100.0 * static_cast<double>(counts[order[i]]) / static_cast<double>(split.size())));
    text += fmt::format("  {:<12}{}", name, joined(parts));
    if (order.size() > shown) text += fmt::format(", ... {} more, the rarest {} with {} samples", order.size() - shown, labels[order.back()], counts[order.back()]);
    text += "\n";
  }
  return text.empty() ? "" : fmt::format("labels        {}\n{}", labels.size(), text);
}

std::string rejected_lines(const DataFile& file) {
  const auto rejected = nlohmann::json::parse(file.text("rejected"), nullptr, false);
  if (!rejected.is_object() || rejected.empty()) return "rejected      none\n";
  std::string text = "rejected\n";
  for (const auto& [reason, entry] : rejected.items())
    text += fmt::format("  {:<12}{} (first: {})\n", entry.value("count", std::int64_t{0}), reason,
                        joined(entry.value("examples", std::vector<std::string>{}), "; "));
  return text;
}

}  // namespace

std::string data_card(const DataFile& file) {
  std::string text = fmt::format("data set      {} ({}), licence {}\nfile          {}, {}, made {}\nsources\n", file.name(), file.kind(), file.licence(),
                                 file.path().string(), human_bytes(static_cast<double>(std::filesystem::file_size(file.path()))), file.text("created"));
  for (const auto& [name, sum] : file.sources()) text += fmt::format("  {}  sha256 {}\n", name, sum);
  text += fmt::format("tokenizer     sha256 {}\nsplits\n", file.tokenizer_sha256());
  for (const auto& name : file.splits()) text += split_lines(name, file.split(name));
  return text + label_lines(file) + rejected_lines(file);
}

}  // namespace attune
