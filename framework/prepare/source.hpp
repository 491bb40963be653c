// Raw files to records: JSON Lines, a JSON array, CSV and TSV, plain or gzipped.
#pragma once
#include <attune/dataset.hpp>
#include <attune/schema.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace attune {

/// One [[source]] of a recipe.
struct SourceOptions {
  std::string path;
  std::string split;
  std::string format;
  std::string delimiter;
  std::string layout;
  OptionMap fields;
  std::string sha256;
  static void describe(Schema<SourceOptions>& s);
};

/// Every record of the file. Records keep the line they begin on (JSON array: the element's number), from 1, and the path as `name`.
///
/// JSON Lines: one object a line. CSV as in RFC 4180 (quoted fields may hold delimiters, quotes as "" and line breaks); the first line
/// names the columns. TSV as IANA registered it: nothing is quoted. CRLF, a UTF-8 byte order mark and empty lines are accepted.
///
/// fields = { text = "review" } gives the record's field `text` the value of the source's `review`, and leaves all others out.
/// Layouts: "prompt_completion" (prompt, completion), "alpaca" (instruction, input, output), "messages" (messages: a list of
/// {role, content}). Without either every text, number and boolean keeps its name.
///
/// Error with file, row and the cure for anything that does not fit.
std::vector<Record> read_source(const SourceOptions& options, const std::filesystem::path& path, const std::string& name);

}  // namespace attune
