// JSON Lines, and one JSON list of objects.
#include <attune/error.hpp>

#include "core/json_text.hpp"
#include "prepare/formats.hpp"
#include "prepare/values.hpp"

namespace attune {
namespace {

constexpr std::string_view blanks = " \t\r\n";

bool is_blank(std::string_view text) {
  return text.find_first_not_of(blanks) == std::string_view::npos;
}

RowJson parse_row(const Row& row, const std::string& text) {
  if (const auto number = number_beyond_64_bits(text); !number.empty())
    bad_row(row, "a number of more than 64 bits",
            "contains the integer {}, which exceeds 64 bits; write it in quotes, as a text",
            number);
  try {
    return RowJson::parse(text);
  } catch (const RowJson::parse_error& error) {
    if (const auto word = non_number_at(text, error.byte); !word.empty())
      bad_row(row, "not valid JSON",
              "contains {} (at byte {} of it), which is not valid in JSON; write a number or null",
              word, error.byte);
    if (error.byte > text.size())
      bad_row(
          row, "not valid JSON",
          "is not valid JSON: it ends prematurely; correct or remove it, or fetch the file again");
    bad_row(row, "not valid JSON", "is not valid JSON (at byte {} of it); correct or remove it",
            error.byte);
  } catch (const RowJson::out_of_range&) {
    bad_row(row, "not valid JSON", "contains a number that is too large; correct or remove it");
  }
}

/// JSON's grammar allows an escaped half of a surrogate pair, and UTF-8 has no form for it (RFC
/// 8259, section 8.2).
std::string with_whole_surrogates(const Row& row, std::string text, Ledger& ledger) {
  const auto halves = replace_lone_surrogates(text);
  if (halves > 0)
    ledger.change("unpaired surrogates (\\ud800 to \\udfff) replaced by U+FFFD", row.where(),
                  halves);
  return text;
}

void use_row(const Source& source, const Row& row, std::string_view text, Ledger& ledger,
             const UseRecord& use) {
  ledger.guard(source.skips_bad_rows(), row.source, row.number, [&] {
    auto sound = with_whole_surrogates(row, sound_text(std::string(text), row, ledger), ledger);
    auto record = record_of(source.options, row, parse_row(row, sound));
    use(record);
  });
}

// --- JSON Lines

void read_lines(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  const auto text = source.range(block.begin, block.end);
  std::string_view rest = text;
  for (auto number = block.first_row; !rest.empty(); ++number) {
    const auto end = rest.find('\n');
    const auto line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (!is_blank(line)) use_row(source, {source.options.path, number}, line, ledger, use);
  }
}

// --- A list

/// Follows the text of a JSON list, a character at a time.
class ListCursor {
 public:
  enum class At { inside, comma, begin, end, after, stray };

  /// Where this character leaves us: the commas and ends of the outermost list alone are told.
  At step(char c) {
    if (in_string_) {
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else if (c == '"')
        in_string_ = false;
      return At::inside;
    }
    if (depth_ == 0) {
      if (blanks.find(c) != std::string_view::npos) return At::after;
      if (c != '[' || ended_) return At::stray;
      ++depth_;
      return At::begin;
    }
    if (c == '"') in_string_ = true;
    if (c == '[' || c == '{') ++depth_;
    if ((c == ']' || c == '}') && --depth_ == 0) {
      ended_ = true;
      return At::end;
    }
    return c == ',' && depth_ == 1 ? At::comma : At::inside;
  }
  bool ended() const { return ended_; }

 private:
  std::int64_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool ended_ = false;
};

void scan_list(Source& source) {
  ListCursor cursor;
  std::uint64_t at = 0;
  std::uint64_t begin = 0;
  std::int64_t first_row = 1;
  std::int64_t row = 1;
  auto& blocks = source.blocks;
  const auto cut = [&] {
    if (at > begin) blocks.push_back({begin, at, first_row, at - begin});
    begin = at + 1;
    first_row = row;
  };
  const auto mark = scan_bytes(source, [&](std::string_view bytes) {
    for (const char c : bytes) {
      switch (cursor.step(c)) {
        case ListCursor::At::begin: begin = at + 1; break;
        case ListCursor::At::comma:
          ++row;
          if (at - begin >= block_bytes) cut();
          break;
        case ListCursor::At::end: cut(); break;
        case ListCursor::At::stray:
          if (cursor.ended())
            fail(
                "{}: has content after the end of its list; set format = \"jsonl\" if each line is "
                "an object",
                source.path.string());
          fail(
              "{}: should be one JSON list of objects; set format = \"jsonl\" if each line is an "
              "object",
              source.path.string());
        default: break;
      }
      if (at > begin + largest_record + block_bytes)
        fail("{}, row {}: is longer than {} MiB", source.options.path, row, largest_record >> 20);
      ++at;
    }
  });
  if (!cursor.ended() && !source.skips_bad_rows())
    fail(
        "{}, row {}: the file ends in the middle of its list, so it is truncated: fetch it again, "
        "or keep the complete rows with on_error = \"skip\"",
        source.options.path, row);
  if (!cursor.ended()) cut();
  for (auto& block : blocks) {
    block.begin += mark;
    block.end += mark;
  }
}

void read_list(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  const auto text = source.range(block.begin, block.end);
  ListCursor cursor;
  cursor.step('[');
  auto number = block.first_row;
  std::size_t begin = 0;
  const auto take = [&](std::size_t end) {
    use_row(source, {source.options.path, number},
            std::string_view(text).substr(begin, end - begin), ledger, use);
    ++number;
    begin = end + 1;
  };
  for (std::size_t at = 0; at < text.size(); ++at)
    if (cursor.step(text[at]) == ListCursor::At::comma) take(at);
  // A list may have no element, or a comma after its last.
  if (!is_blank(std::string_view(text).substr(begin))) take(text.size());
}

}  // namespace

/// Blocks of whole lines.
void scan_lines(Source& source) {
  std::uint64_t at = 0;
  std::uint64_t begin = 0;
  std::uint64_t line = 0;
  std::int64_t first_row = 1;
  std::int64_t row = 1;
  auto& blocks = source.blocks;
  const auto mark = scan_bytes(source, [&](std::string_view bytes) {
    for (std::size_t next; (next = bytes.find('\n')) != std::string_view::npos;
         bytes.remove_prefix(next + 1)) {
      at += next + 1;
      ++row;
      line = at;
      if (at - begin < block_bytes) continue;
      blocks.push_back({begin, at, first_row, at - begin});
      begin = at;
      first_row = row;
    }
    at += bytes.size();
    if (at - line > largest_record)
      fail("{}, row {}: this line is longer than {} MiB; check the format", source.options.path,
           row, largest_record >> 20);
  });
  if (at > begin) blocks.push_back({begin, at, first_row, at - begin});
  for (auto& block : blocks) {
    block.begin += mark;
    block.end += mark;
  }
}

const SourceFormat json_lines_format{scan_lines, read_lines};
const SourceFormat json_list_format{scan_list, read_list};

}  // namespace attune
