// CSV and TSV.
#include <attune/error.hpp>

#include <algorithm>
#include <set>

#include "core/names.hpp"
#include "prepare/formats.hpp"
#include "prepare/values.hpp"

namespace attune {
namespace {

/// Cuts a table into rows of fields.
class TableReader {
 public:
  TableReader(std::string_view text, char delimiter, bool quoting, const std::string& name,
              std::int64_t first_row)
      : text_(text), delimiter_(delimiter), quoting_(quoting), name_(name), line_(first_row) {}

  /// Goes to the next row that is not empty; false at the end.
  bool find_row() {
    while (at_ < text_.size() && (text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n"))
      skip_line_end();
    row_ = line_;
    return at_ < text_.size();
  }
  /// The fields of that row. After a BadRow it goes on with the next line.
  std::vector<std::string> fields() {
    std::vector<std::string> fields;
    try {
      do fields.push_back(field());
      while (take_delimiter());
      skip_line_end();
    } catch (const BadRow&) {
      while (!at_line_end()) ++at_;
      skip_line_end();
      throw;
    }
    return fields;
  }
  /// The line the row begins on.
  Row row() const { return {name_, row_}; }
  /// Bytes read so far.
  std::size_t position() const { return at_; }
  std::int64_t line() const { return line_; }

 private:
  bool at_line_end() const {
    return at_ >= text_.size() || text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n" ||
           text_.substr(at_) == "\r";
  }
  void skip_line_end() {
    if (at_ < text_.size() && text_[at_] == '\r') ++at_;
    if (at_ < text_.size() && text_[at_] == '\n') {
      ++at_;
      ++line_;
    }
  }
  bool take_delimiter() {
    if (at_ >= text_.size() || text_[at_] != delimiter_) return false;
    ++at_;
    return true;
  }
  std::string field() {
    return quoting_ && at_ < text_.size() && text_[at_] == '"' ? quoted_field() : plain_field();
  }
  std::string plain_field() {
    const auto begin = at_;
    while (!at_line_end() && text_[at_] != delimiter_) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  std::string quoted_field() {
    std::string value;
    const auto opened = line_;
    for (++at_;; ++at_) {
      if (at_ >= text_.size())
        bad_row(row(), "a quote that is never closed",
                "a quoted field that begins on line {} is never closed and extends to line {}; "
                "close the quote",
                opened, line_);
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        value += text_[at_];
      } else if (text_.substr(at_, 2) == "\"\"") {
        value += '"';
        ++at_;
      } else {
        break;
      }
    }
    ++at_;
    if (!at_line_end() && text_[at_] != delimiter_)
      bad_row(row(), "text after a closing quote",
              "text follows a closing quote; write a quote inside a quoted field as \"\"");
    return value;
  }

  std::string_view text_;
  char delimiter_;
  bool quoting_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::int64_t line_;
  std::int64_t row_ = 1;
};

/// Follows a table a character at a time, to know which line ends are rows' ends.
class QuoteCursor {
 public:
  explicit QuoteCursor(char delimiter) : delimiter_(delimiter) {}
  /// Whether a row ends with this character.
  bool step(char c) {
    if (state_ == State::quoted) {
      if (c == '"') state_ = State::maybe_closed;
      return false;
    }
    // opened, or a quote written as ""
    if (c == '"' && state_ != State::plain) {
      state_ = State::quoted;
      return false;
    }
    const bool ends = c == '\n';
    state_ = ends || c == delimiter_ ? State::field_start : State::plain;
    return ends;
  }

 private:
  enum class State { field_start, plain, quoted, maybe_closed } state_ = State::field_start;
  char delimiter_;
};

char delimiter_of(const Source& source) {
  if (source.format == "tsv") return '\t';
  return source.options.delimiter.empty() ? ',' : source.options.delimiter[0];
}

/// Takes the header off the first block.
void read_header(Source& source) {
  const auto& name = source.options.path;
  if (source.blocks.empty()) fail("{}: is empty; its first line should name the columns", name);
  auto& block = source.blocks.front();
  const auto text = source.range(block.begin, block.end);
  TableReader table(text, delimiter_of(source), source.format == "csv", name, block.first_row);
  if (!table.find_row()) fail("{}: is empty; its first line should name the columns", name);
  Ledger ledger;
  for (auto& column : table.fields())
    source.header.push_back(sound_text(std::move(column), table.row(), ledger));
  const auto has = [](const std::string& column, char c) {
    return column.find(c) != std::string::npos;
  };
  if (std::ranges::any_of(source.header, [&](const auto& column) {
        return has(column, '\r') && !has(column, '\n');
      }))
    fail("{}: its lines end with carriage returns only; convert it (tr '\\r' '\\n')", name);
  if (std::set<std::string>(source.header.begin(), source.header.end()).size() !=
      source.header.size())
    fail("{}: two columns have the same name ({})", table.row().where(), joined(source.header));
  block.begin += table.position();
  block.first_row = table.line();
}

void scan_tsv(Source& source) {
  scan_lines(source);
  read_header(source);
}

void scan_csv(Source& source) {
  QuoteCursor cursor(delimiter_of(source));
  std::uint64_t at = 0;
  std::uint64_t begin = 0;
  std::uint64_t row_begin = 0;
  std::int64_t first_row = 1;
  std::int64_t line = 1;
  auto& blocks = source.blocks;
  const auto mark = scan_bytes(source, [&](std::string_view bytes) {
    for (const char c : bytes) {
      ++at;
      if (c == '\n') ++line;
      if (!cursor.step(c)) continue;
      row_begin = at;
      if (at - begin < block_bytes) continue;
      blocks.push_back({begin, at, first_row, at - begin});
      begin = at;
      first_row = line;
    }
    if (at - row_begin > largest_record)
      fail("{}: the row at byte {} is longer than {} MiB; a quote there is never closed",
           source.options.path, row_begin, largest_record >> 20);
  });
  if (at > begin) blocks.push_back({begin, at, first_row, at - begin});
  for (auto& block : blocks) {
    block.begin += mark;
    block.end += mark;
  }
  read_header(source);
}

RowJson object_of(const Source& source, const Row& row, std::vector<std::string> values,
                  Ledger& ledger) {
  const auto& header = source.header;
  if (values.size() != header.size())
    bad_row(row, "fields that do not match the header",
            "has {} field{}, but the header has {} ({}); quote fields that contain the delimiter "
            "or a line break",
            values.size(), values.size() == 1 ? "" : "s", header.size(), joined(header));
  auto object = RowJson::object();
  for (std::size_t i = 0; i < header.size(); ++i)
    object[header[i]] = sound_text(std::move(values[i]), row, ledger);
  return object;
}

void read_table(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  const auto text = source.range(block.begin, block.end);
  TableReader table(text, delimiter_of(source), source.format == "csv", source.options.path,
                    block.first_row);
  while (table.find_row())
    ledger.guard(source.skips_bad_rows(), source.options.path, table.row().number, [&] {
      auto record = record_of(source.options, table.row(),
                              object_of(source, table.row(), table.fields(), ledger));
      use(record);
    });
}

}  // namespace

const SourceFormat csv_format{scan_csv, read_table};
const SourceFormat tsv_format{scan_tsv, read_table};

}  // namespace attune
