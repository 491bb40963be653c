#include "prepare/source.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/names.hpp"
#include "prepare/formats.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

const std::map<std::string, const SourceFormat*>& formats() {
  static const std::map<std::string, const SourceFormat*> all{
      {"jsonl", &json_lines_format}, {"json", &json_list_format},  {"csv", &csv_format},
      {"tsv", &tsv_format},          {"parquet", &parquet_format}, {"text", &text_format},
      {"images", &images_format},    {"idx", &idx_format}};
  return all;
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const auto& [name, format] : formats()) names.push_back(name);
  return names;
}

std::string format_of(const SourceOptions& options, const fs::path& path) {
  if (!options.format.empty()) return options.format;
  const auto name = path.extension() == ".gz" ? path.stem() : path;
  const auto extension = name.extension().string();
  for (const auto* known : {"jsonl", "json", "csv", "tsv", "parquet"})
    if (extension == std::string(".") + known) return known;
  if (name.filename().string().ends_with("-ubyte")) return "idx";
  fail("{}: its format cannot be inferred from its name; set format to one of: {}", path.string(),
       joined(format_names()));
}

std::string lowercase_hex(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

void SourceOptions::describe(Schema<SourceOptions>& s) {
  auto choices = format_names();
  choices.insert(choices.begin(), "");
  s.key("path", &SourceOptions::path,
        "file or folder, relative to the recipe; files may be gzipped")
      .required();
  s.key("split", &SourceOptions::split,
        "split that all records of the source go to; empty: [split] decides")
      .choices({"", "train", "validation", "test"});
  s.key("format", &SourceOptions::format, "file format; empty: inferred from the file name")
      .choices(std::move(choices));
  s.key("delimiter", &SourceOptions::delimiter,
        "field separator of a csv file, one character; empty: a comma");
  s.key("layout", &SourceOptions::layout,
        "predefined conversation layout, used instead of `fields`")
      .choices({"", "prompt_completion", "alpaca", "messages", "preference"});
  s.key("fields", &SourceOptions::fields,
        "record fields and the source fields that fill them: { text = \"review\" }");
  s.key("ignore", &SourceOptions::ignore,
        "keys of a layout's rows and messages to ignore, as if they were absent");
  s.key("files", &SourceOptions::files,
        "pattern that selects files of a folder by their path in it; * matches any characters, "
        "including /");
  s.key("labels", &SourceOptions::labels,
        "label file of an idx source, relative to the source's folder");
  s.key("sha256", &SourceOptions::sha256,
        "expected SHA-256 of the unmodified file; for several files, SHA-256 of their sha256sum "
        "listing; empty: not checked");
  s.key("on_error", &SourceOptions::on_error,
        "reaction to an unreadable row of this source: stop, or skip and count it; empty: the "
        "recipe's `on_error`")
      .choices({"", "stop", "skip"});
  s.key("weight", &SourceOptions::weight,
        "how often each training record of the source is taken: 0.5 takes half of the records, 2 "
        "takes each record twice")
      .above(0);
}

std::uint64_t Source::bytes() const {
  return std::accumulate(blocks.begin(), blocks.end(), std::uint64_t{0},
                         [](auto sum, const Block& block) { return sum + block.bytes; });
}

std::string Source::range(std::uint64_t begin, std::uint64_t end) const {
  if (!open) open = std::make_shared<UnpackedFile>(path);
  return open->range(begin, end);
}

json to_json(const Source& source) {
  json blocks = json::array();
  for (const auto& block : source.blocks)
    blocks.push_back({block.begin, block.end, block.first_row, block.bytes});
  return {{"format", source.format},
          {"sha256", source.sha256},
          {"blocks", std::move(blocks)},
          {"header", source.header},
          {"files", source.files}};
}

Source source_from(const SourceOptions& options, const fs::path& path, const json& scanned) {
  Source source{options,
                path,
                scanned.at("format"),
                scanned.at("sha256"),
                {},
                scanned.at("header"),
                scanned.at("files")};
  for (const auto& block : scanned.at("blocks"))
    source.blocks.push_back({block[0], block[1], block[2], block[3]});
  return source;
}

Source scan_source(const SourceOptions& options, const fs::path& path) {
  Source source{options, path, format_of(options, path), {}, {}, {}, {}};
  formats().at(source.format)->scan(source);
  if (!options.sha256.empty() && source.sha256 != lowercase_hex(options.sha256))
    fail(
        "{}: its sha256 is {}, but the recipe expects {}; fetch the file again, or correct the "
        "recipe",
        path.string(), source.sha256, options.sha256);
  return source;
}

void read_block(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  formats().at(source.format)->read(source, block, ledger, use);
}

std::uint64_t scan_bytes(Source& source, const std::function<void(std::string_view)>& feed) {
  constexpr std::size_t at_once = 1 << 20;
  UnpackedFile file(source.path);
  std::string buffer(at_once, '\0');
  Sha256 sum;
  std::uint64_t mark = 0;
  bool first = true;
  for (std::size_t got; (got = file.read(buffer.data(), at_once)) > 0; first = false) {
    std::string_view bytes(buffer.data(), got);
    if (file.plain()) sum.add(bytes);
    if (first && (bytes.starts_with("\xff\xfe") || bytes.starts_with("\xfe\xff")))
      fail("{}: is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)", source.path.string());
    if (first && bytes.starts_with("\xef\xbb\xbf")) bytes.remove_prefix(mark = 3);
    feed(bytes);
  }
  source.sha256 = file.plain() ? sum.hex() : sha256_of_file(source.path);
  return mark;
}

std::vector<Block> item_blocks(std::uint64_t count, std::uint64_t item_bytes) {
  const auto step =
      std::max<std::uint64_t>(1, block_bytes / std::max<std::uint64_t>(1, item_bytes));
  std::vector<Block> blocks;
  for (std::uint64_t first = 0; first < count; first += step) {
    const auto end = std::min(count, first + step);
    blocks.push_back(
        {first, end, static_cast<std::int64_t>(first) + 1, (end - first) * item_bytes});
  }
  return blocks;
}

}  // namespace attune
