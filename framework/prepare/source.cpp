#include "prepare/source.hpp"

#include <attune/error.hpp>
#include <zlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/names.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

/// The whole file, unpacked when it is gzipped, without a byte order mark.
std::string read_unpacked(const fs::path& path) {
  if (!fs::is_regular_file(path)) fail("{}: there is no such file", path.string());
  const auto close = [](gzFile file) { gzclose_r(file); };
  const std::unique_ptr<gzFile_s, decltype(close)> file(gzopen(path.c_str(), "rb"), close);
  if (!file) fail("{}: cannot be read; is it a file you may read?", path.string());
  std::string text, buffer(1 << 18, '\0');
  for (int count; (count = gzread(file.get(), buffer.data(), static_cast<unsigned>(buffer.size()))) != 0;) {
    if (count < 0) break;
    text.append(buffer, 0, static_cast<std::size_t>(count));
  }
  int code = Z_OK;
  const std::string reason = gzerror(file.get(), &code);
  if (code != Z_OK && code != Z_STREAM_END) fail("{}: cannot be unpacked ({}); fetch it again", path.string(), reason);
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) fail("{}: is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)", path.string());
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  return text;
}

std::string format_of(const SourceOptions& options, const fs::path& path) {
  if (!options.format.empty()) return options.format;
  const auto name = path.extension() == ".gz" ? path.stem() : path;
  const auto extension = name.extension().string();
  for (const auto* known : {"jsonl", "json", "csv", "tsv"})
    if (extension == std::string(".") + known) return known;
  fail("{}: its name does not say what it is; set format = \"jsonl\", \"json\", \"csv\" or \"tsv\"", path.string());
}

// --- A row of a source, before it becomes a record.

struct Row {
  const std::string& source;
  std::int64_t number;
  std::string where() const { return fmt::format("{}, row {}", source, number); }
};

std::string listed(const std::vector<std::string>& names) { return names.empty() ? "none" : joined(names); }

/// The value of a key, or an Error that lists the keys there are.
const json& member(const Row& row, const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found != object.end() && !found->is_null()) return *found;
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  fail("{}: there is no field '{}' (those there: {}){}; correct fields or layout in the recipe", row.where(), key, listed(names),
       did_you_mean(key, names));
}

/// Texts as they are; numbers and booleans as JSON writes them.
std::string text_of(const Row& row, const json& object, const std::string& key) {
  const json& value = member(row, object, key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  fail("{}: the field '{}' is {} and should be a text, a number or a boolean; correct fields or layout in the recipe", row.where(), key,
       value.is_array() ? "a list" : "a table");
}

std::string optional_text(const Row& row, const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? "" : text_of(row, object, key);
}

std::vector<Message> messages_of(const Row& row, const json& object) {
  const json& list = member(row, object, "messages");
  if (!list.is_array() || list.empty()) fail("{}: 'messages' should be a list of {{role, content}} with at least one entry", row.where());
  std::vector<Message> messages;
  for (const auto& message : list) {
    if (!message.is_object()) fail("{}: an entry of 'messages' is not a table with role and content", row.where());
    messages.push_back({text_of(row, message, "role"), text_of(row, message, "content")});
    if (const auto& role = messages.back().role; role != "system" && role != "user" && role != "assistant")
      fail("{}: the role '{}' is none of system, user, assistant", row.where(), role);
  }
  return messages;
}

/// instruction and, where there is one, its input, as one prompt.
std::string alpaca_prompt(const Row& row, const json& object) {
  const auto input = optional_text(row, object, "input");
  return text_of(row, object, "instruction") + (input.empty() ? "" : "\n\n" + input);
}

Record record_of(const SourceOptions& options, const Row& row, const json& object) {
  Record record;
  record.source = row.source;
  record.row = row.number;
  auto& fields = record.fields;
  if (options.layout == "messages") {
    record.messages = messages_of(row, object);
  } else if (!options.layout.empty()) {
    const bool alpaca = options.layout == "alpaca";
    fields["prompt"] = alpaca ? alpaca_prompt(row, object) : text_of(row, object, "prompt");
    fields["response"] = text_of(row, object, alpaca ? "output" : "completion");
    if (auto system = optional_text(row, object, "system"); !system.empty()) fields["system"] = std::move(system);
  } else if (!options.fields.empty()) {
    for (const auto& [name, key] : options.fields) fields[name] = text_of(row, object, key);
  } else {
    for (const auto& [key, value] : object.items())
      if (value.is_string() || value.is_number() || value.is_boolean()) fields[key] = text_of(row, object, key);
  }
  return record;
}

// --- JSON

json parse_json(const Row& row, std::string_view text) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    fail("{}: is not valid JSON (at byte {} of it); correct or remove it", row.where(), error.byte);
  }
}

void require_object(const Row& row, const json& value) {
  if (!value.is_object()) fail("{}: is not a JSON object ({{...}}), but a record must be one", row.where());
}

std::vector<Record> read_json_lines(const SourceOptions& options, std::string_view text, const std::string& name) {
  std::vector<Record> records;
  std::int64_t line_number = 0;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const Row row{name, ++line_number};
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const json object = parse_json(row, line);
    require_object(row, object);
    records.push_back(record_of(options, row, object));
  }
  return records;
}

std::vector<Record> read_json_array(const SourceOptions& options, std::string_view text, const std::string& name) {
  const json list = parse_json({name, 1}, text);
  if (!list.is_array()) fail("{}: should be one JSON list of objects; set format = \"jsonl\" if it holds an object on each line", name);
  std::vector<Record> records;
  for (const auto& object : list) {
    const Row row{name, static_cast<std::int64_t>(records.size()) + 1};
    require_object(row, object);
    records.push_back(record_of(options, row, object));
  }
  return records;
}

// --- Tables

/// Cuts a table into rows of fields.
class TableReader {
 public:
  TableReader(std::string_view text, char delimiter, bool quoting, const std::string& name)
      : text_(text), delimiter_(delimiter), quoting_(quoting), name_(name) {}

  /// The next row that is not empty; false at the end.
  bool next(std::vector<std::string>& fields) {
    fields.clear();
    while (at_ < text_.size() && (text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n")) skip_line_end();
    if (at_ >= text_.size()) return false;
    row_ = line_;
    do fields.push_back(field());
    while (take_delimiter());
    skip_line_end();
    return true;
  }
  /// The line the last row begins on, from 1.
  std::int64_t row() const { return row_; }

 private:
  bool at_line_end() const { return at_ >= text_.size() || text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n" || text_.substr(at_) == "\r"; }
  void skip_line_end() {
    if (at_ < text_.size() && text_[at_] == '\r') ++at_;
    if (at_ < text_.size() && text_[at_] == '\n') ++at_, ++line_;
  }
  bool take_delimiter() {
    if (at_ >= text_.size() || text_[at_] != delimiter_) return false;
    return ++at_, true;
  }
  std::string field() { return quoting_ && at_ < text_.size() && text_[at_] == '"' ? quoted_field() : plain_field(); }
  std::string plain_field() {
    const auto begin = at_;
    while (!at_line_end() && text_[at_] != delimiter_) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  std::string quoted_field() {
    std::string value;
    const auto opened = line_;
    for (++at_;; ++at_) {
      if (at_ >= text_.size()) fail("{}, row {}: a quoted field that begins on line {} is never closed; close the quote", name_, row_, opened);
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        value += text_[at_];
      } else if (text_.substr(at_, 2) == "\"\"") {
        value += '"', ++at_;
      } else {
        break;
      }
    }
    ++at_;
    if (!at_line_end() && text_[at_] != delimiter_)
      fail("{}, row {}: there is text after a closing quote; write a quote inside a quoted field as \"\"", name_, row_);
    return value;
  }

  std::string_view text_;
  char delimiter_;
  bool quoting_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1, row_ = 1;
};

std::vector<Record> read_table(const SourceOptions& options, std::string_view text, const std::string& name, char delimiter, bool quoting) {
  TableReader table(text, delimiter, quoting, name);
  std::vector<std::string> header, values;
  if (!table.next(header)) fail("{}: is empty; its first line should name the columns", name);
  if (std::set<std::string>(header.begin(), header.end()).size() != header.size())
    fail("{}, row {}: two columns have the same name ({})", name, table.row(), joined(header));
  std::vector<Record> records;
  while (table.next(values)) {
    const Row row{name, table.row()};
    if (values.size() != header.size())
      fail("{}: has {} field{} where the header has {} ({}); quote fields that hold the delimiter or a line break", row.where(), values.size(),
           values.size() == 1 ? "" : "s", header.size(), joined(header));
    json object = json::object();
    for (std::size_t i = 0; i < header.size(); ++i) object[header[i]] = std::move(values[i]);
    records.push_back(record_of(options, row, object));
  }
  return records;
}

}  // namespace

void SourceOptions::describe(Schema<SourceOptions>& s) {
  s.key("path", &SourceOptions::path, "the file, relative to the recipe; may be gzipped").required();
  s.key("split", &SourceOptions::split, "the split all its records go to; without it [split] decides").choices({"", "train", "validation", "test"});
  s.key("format", &SourceOptions::format, "what it is; without it the name's extension says so").choices({"", "jsonl", "json", "csv", "tsv"});
  s.key("delimiter", &SourceOptions::delimiter, "the one character between the fields of a csv; without it a comma");
  s.key("layout", &SourceOptions::layout, "a known form of conversations, in place of fields").choices({"", "prompt_completion", "alpaca", "messages"});
  s.key("fields", &SourceOptions::fields, "the record's fields and the source's that fill them: { text = \"review\" }");
  s.key("sha256", &SourceOptions::sha256, "of the file as it is; checked when given");
}

std::vector<Record> read_source(const SourceOptions& options, const fs::path& path, const std::string& name) {
  if (!options.sha256.empty()) {
    std::string wanted = options.sha256;
    std::transform(wanted.begin(), wanted.end(), wanted.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (const auto found = sha256_of_file(path); found != wanted)
      fail("{}: its sha256 is {} and the recipe says {}; fetch the file again, or correct the recipe", path.string(), found, wanted);
  }
  const auto format = format_of(options, path);
  const auto text = read_unpacked(path);
  if (format == "jsonl") return read_json_lines(options, text, name);
  if (format == "json") return read_json_array(options, text, name);
  if (format == "tsv") return read_table(options, text, name, '\t', false);
  return read_table(options, text, name, options.delimiter.empty() ? ',' : options.delimiter[0], true);
}

}  // namespace attune
