#include "data/card.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/files.hpp"
#include "core/names.hpp"

namespace attune {
namespace {

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

bool has_column(const Split& split, const std::string& name) {
  const auto names = split.columns();
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// A column from end to end, some megabytes at a time.
template <class Use>
void for_each_slab(const hdf5::Dataset& column, Use use) {
  constexpr std::int64_t bytes = 16 << 20;
  const auto step =
      std::max<std::int64_t>(1, bytes / std::max<std::int64_t>(1, column.row_bytes()));
  for (std::int64_t first = 0; first < column.rows(); first += step)
    use(column.read(first, std::min(step, column.rows() - first)));
}

/// "4 / 17 / 45 / 128"
std::string spread(std::vector<std::int64_t> lengths) {
  std::sort(lengths.begin(), lengths.end());
  const auto at = [&](std::size_t share) {
    return lengths[(lengths.size() * share + 99) / 100 - 1];
  };
  return fmt::format("{} / {} / {} / {}", lengths.front(), at(50), at(95), lengths.back());
}

/// A bar for each power of two: how many samples are of that length.
std::string histogram(const std::vector<std::int64_t>& lengths) {
  constexpr double widest = 40;
  std::vector<std::int64_t> counts;  // [i]: from 2^(i-1) to 2^i - 1
  for (const auto length : lengths) {
    const auto bin = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(length)));
    if (bin >= counts.size()) counts.resize(bin + 1);
    ++counts[bin];
  }
  const auto most = *std::max_element(counts.begin(), counts.end());
  std::string text;
  for (auto bin = static_cast<std::size_t>(
           std::find_if(counts.begin(), counts.end(), [](auto n) { return n > 0; }) -
           counts.begin());
       bin < counts.size(); ++bin) {
    const std::int64_t low = bin == 0 ? 0 : std::int64_t{1} << (bin - 1);
    const std::int64_t high = (std::int64_t{1} << bin) - 1;
    const auto width = static_cast<int>(
        std::ceil(widest * static_cast<double>(counts[bin]) / static_cast<double>(most)));
    text += fmt::format("    {:>15} {:<40} {}\n",
                        low == high ? fmt::format("{}", low) : fmt::format("{}-{}", low, high),
                        std::string(static_cast<std::size_t>(width), '#'), counts[bin]);
  }
  return text;
}

/// Error when the column's elements are of another type than the format gives it.
const hdf5::Dataset& values_of(const Split& split, const std::string& column,
                               at::ScalarType dtype) {
  const auto& values = split.values(column);
  if (values.dtype() != dtype)
    fail("{}: has type {} instead of {}; prepare the data again", values.place().text(),
         c10::toString(values.dtype()), c10::toString(dtype));
  return values;
}

std::string trained_share(const Split& split) {
  std::int64_t trained = 0;
  const auto& mask = values_of(split, "loss_mask", at::kByte);
  for_each_slab(mask, [&](const at::Tensor& slab) {
    trained += std::reduce(slab.data_ptr<std::uint8_t>(),
                           slab.data_ptr<std::uint8_t>() + slab.numel(), std::int64_t{0});
  });
  return fmt::format(", {:.1f} % of tokens trained on",
                     percent(static_cast<double>(trained), static_cast<double>(mask.rows())));
}

std::string split_lines(const std::string& name, const Split& split) {
  std::string text = fmt::format("  {:<12}{} samples", name, split.size());
  if (has_column(split, "loss_mask")) text += trained_share(split);
  text += "\n";
  for (const auto& column : split.columns()) {
    if (!split.holds_tokens(column)) continue;
    const auto lengths = split.lengths(column);
    text += fmt::format("    {:<10}{} in all; shortest / median / 95 % / longest: {}\n", column,
                        std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}),
                        spread(lengths));
    text += histogram(lengths);
  }
  if (has_column(split, "pixels")) {
    auto shape = split.values("pixels").shape();
    shape.erase(shape.begin());
    text += fmt::format("    pixels    {} (height x width x channels)\n", fmt::join(shape, " x "));
  }
  return text + fmt::format("    sha256    {}\n", split.sha256());
}

/// The place of a label in a list of so many.
std::size_t label_at(const hdf5::Place& column, std::int64_t label, std::size_t labels) {
  if (label < 0 || static_cast<std::size_t>(label) >= labels)
    fail("{}: contains the label {}, but the file names {} labels; prepare the data again",
         column.text(), label, labels);
  return static_cast<std::size_t>(label);
}

void check_width(const hdf5::Place& column, std::int64_t width, std::size_t labels) {
  if (width != static_cast<std::int64_t>(labels))
    fail("{}: has {} values per sample, but the file names {} labels; prepare the data again",
         column.text(), width, labels);
}

/// Samples of each label; a sample may have none or several.
std::vector<double> label_counts(const Split& split, std::size_t labels) {
  std::vector<double> counts(labels);
  if (has_column(split, "label")) {
    const auto& column = values_of(split, "label", at::kLong);
    for_each_slab(column, [&](const at::Tensor& slab) {
      for (std::int64_t i = 0; i < slab.numel(); ++i)
        ++counts[label_at(column.place(), slab.data_ptr<std::int64_t>()[i], labels)];
    });
  } else {
    const auto& column = values_of(split, "labels", at::kFloat);
    check_width(column.place(), column.row_bytes() / static_cast<std::int64_t>(sizeof(float)),
                labels);
    for_each_slab(column, [&](const at::Tensor& slab) {
      for (std::int64_t i = 0; i < slab.numel(); ++i)
        counts[static_cast<std::size_t>(i) % labels] += slab.data_ptr<float>()[i];
    });
  }
  return counts;
}

std::string balance(const Split& split, const std::vector<std::string>& labels) {
  constexpr std::size_t shown = 10;
  const auto counts = label_counts(split, labels.size());
  std::vector<std::size_t> order(labels.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return counts[a] > counts[b]; });
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < std::min(order.size(), shown); ++i)
    parts.push_back(fmt::format("{} {:.1f} %", labels[order[i]],
                                percent(counts[order[i]], static_cast<double>(split.size()))));
  auto text = joined(parts);
  if (order.size() > shown)
    text += fmt::format(", ... {} more, the rarest {} with {} samples", order.size() - shown,
                        labels[order.back()], counts[order.back()]);
  return text;
}

std::string value_spread(const Split& split) {
  double sum = 0;
  double squares = 0;
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  const auto& values = values_of(split, "value", at::kFloat);
  for_each_slab(values, [&](const at::Tensor& slab) {
    for (std::int64_t i = 0; i < slab.numel(); ++i) {
      const double value = slab.data_ptr<float>()[i];
      sum += value;
      squares += value * value;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  });
  const auto n = static_cast<double>(values.rows());
  const auto mean = sum / n;
  return fmt::format("from {:.4g} to {:.4g}, mean {:.4g}, standard deviation {:.4g}", low, high,
                     mean, std::sqrt(std::max(0.0, squares / n - mean * mean)));
}

std::string label_lines(const DataFile& file) {
  const auto labels = file.labels();
  std::string classes;
  std::string values;
  for (const auto& name : file.splits()) {
    const Split& split = file.split(name);
    if (has_column(split, "value"))
      values += fmt::format("  {:<12}{}\n", name, value_spread(split));
    if (!labels.empty() && (has_column(split, "label") || has_column(split, "labels")))
      classes += fmt::format("  {:<12}{}\n", name, balance(split, labels));
  }
  if (!classes.empty()) classes = fmt::format("labels        {}\n", labels.size()) + classes;
  if (!values.empty()) values = "value\n" + values;
  return classes + values;
}

std::string rejected_lines(const DataFile& file) {
  const auto rejected = nlohmann::json::parse(file.text("rejected"), nullptr, false);
  if (!rejected.is_object() || rejected.empty()) return "rejected      none\n";
  std::string text = "rejected\n";
  try {
    for (const auto& [reason, entry] : rejected.items())
      text += fmt::format("  {:<12}{} (first: {})\n", entry.value("count", std::int64_t{0}), reason,
                          joined(entry.value("examples", std::vector<std::string>{}), "; "));
  } catch (const nlohmann::json::exception& error) {
    fail("{}: its attribute 'rejected' is invalid ({}); prepare the data again",
         file.path().string(), error.what());
  }
  return text;
}

// --- Samples

/// The beginning of a text, each of its lines behind a bar.
std::string framed(std::string text) {
  constexpr std::size_t longest = 600;
  if (text.size() > longest) {
    auto end = longest;
    // not inside a character
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text = text.substr(0, end) + " ...";
  }
  std::string lines = "    | ";
  for (const char c : text) lines += c == '\n' ? std::string("\n    | ") : std::string(1, c);
  return lines + "\n";
}

std::vector<std::int32_t> ids_of(const at::Tensor& tokens) {
  return {tokens.data_ptr<std::int32_t>(), tokens.data_ptr<std::int32_t>() + tokens.numel()};
}

/// What is trained on stands between guillemets.
std::string marked(const at::Tensor& tokens, const at::Tensor& mask, const Decode& decode) {
  const auto ids = ids_of(tokens);
  const auto* trained = mask.data_ptr<std::uint8_t>();
  std::string text;
  for (std::size_t from = 0, to = 0; from < ids.size(); from = to) {
    while (to < ids.size() && trained[to] == trained[from]) ++to;
    const auto part = decode({ids.begin() + static_cast<std::ptrdiff_t>(from),
                              ids.begin() + static_cast<std::ptrdiff_t>(to)});
    text += trained[from] ? "\u00ab" + part + "\u00bb" : part;
  }
  return text;
}

std::string targets_of(const Split& split, const Sample& sample,
                       const std::vector<std::string>& labels) {
  if (const auto label = sample.find("label"); label != sample.end())
    return ", label " + labels[label_at(values_of(split, "label", at::kLong).place(),
                                        label->second.item<std::int64_t>(), labels.size())];
  if (const auto value = sample.find("value"); value != sample.end())
    return fmt::format(", value {:g}", value->second.item<double>());
  const auto several = sample.find("labels");
  if (several == sample.end()) return "";
  check_width(values_of(split, "labels", at::kFloat).place(), several->second.numel(),
              labels.size());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (several->second.data_ptr<float>()[i] > 0.5f) names.push_back(labels[i]);
  return ", labels " + (names.empty() ? "none" : joined(names));
}

std::string texts_of(const Split& split, const Sample& sample, const Decode& decode) {
  std::string text;
  for (const auto& [name, column] : sample) {
    if (column.scalar_type() != at::kInt || column.dim() != 1) continue;
    if (name != "tokens" || !sample.contains("loss_mask")) {
      text +=
          (name == "tokens" ? "" : fmt::format("    {}\n", name)) + framed(decode(ids_of(column)));
      continue;
    }
    const auto& mask = sample.at("loss_mask");
    const auto& place = values_of(split, "loss_mask", at::kByte).place();
    if (mask.numel() != column.numel())
      fail("{}: a sample has {} values for {} tokens; prepare the data again", place.text(),
           mask.numel(), column.numel());
    text += framed(marked(column, mask, decode));
  }
  return text;
}

std::string sizes_of(const Sample& sample) {
  std::string text;
  for (const auto& [name, column] : sample) {
    if (column.scalar_type() == at::kInt && column.dim() == 1)
      text += fmt::format(", {} {}", column.numel(), name == "tokens" ? name : "tokens of " + name);
    if (name == "pixels") text += fmt::format(", {} pixels", fmt::join(column.sizes(), " x "));
  }
  return text;
}

}  // namespace

std::string sample_lines(const DataFile& file, const Decode& decode) {
  constexpr std::int64_t shown = 10;
  const auto name = file.has("train") ? "train" : file.splits().front();
  const Split& split = file.split(name);
  const auto labels = file.labels();
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < std::min(shown, split.size()); ++i)
    rows.push_back(i * split.size() / std::min(shown, split.size()));
  const auto samples = split.read(rows);
  std::string text = fmt::format("samples of '{}'{}\n", name,
                                 decode && has_column(split, "loss_mask")
                                     ? "; training targets are between \u00ab and \u00bb"
                                     : "");
  for (std::size_t i = 0; i < rows.size(); ++i)
    text += fmt::format("  row {}{}{}\n", rows[i], sizes_of(samples[i]),
                        targets_of(split, samples[i], labels)) +
            (decode ? texts_of(split, samples[i], decode) : "");
  return text;
}

std::string data_card(const DataFile& file) {
  std::string text =
      fmt::format("data set      {} ({}), licence {}\nfile          {}, {}, made {}\nsources\n",
                  file.name(), file.kind(), file.licence(), file.path().string(),
                  human_bytes(static_cast<double>(std::filesystem::file_size(file.path()))),
                  file.text("created"));
  for (const auto& [name, sum] : file.sources())
    text += fmt::format("  {}  sha256 {}\n", name, sum);
  text +=
      fmt::format("tokenizer     {}\nsplits\n",
                  file.tokenizer_sha256().empty() ? "none" : "sha256 " + file.tokenizer_sha256());
  for (const auto& name : file.splits()) text += split_lines(name, file.split(name));
  return text + label_lines(file) + rejected_lines(file);
}

}  // namespace attune
