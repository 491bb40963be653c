// Raw files to records. A source is scanned once, which finds its checksum and cuts it into blocks
// at the borders of records; ranks then read blocks by themselves.
#pragma once
#include <attune/dataset.hpp>
#include <attune/schema.hpp>
#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "prepare/ledger.hpp"

namespace attune {

class UnpackedFile;

/// One [[source]] of a recipe.
struct SourceOptions {
  std::string path;
  std::string split;
  std::string format;
  std::string delimiter;
  std::string layout;
  OptionMap fields;
  std::vector<std::string> ignore;
  std::string files = "*";
  std::string labels;
  std::string sha256;
  std::string on_error;
  double weight = 1;
  static void describe(Schema<SourceOptions>& s);
};

/// A stretch of a source, holding whole records: bytes of the unpacked file, or numbers of its
/// files, pictures or row groups.
struct Block {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::int64_t first_row = 1;
  std::uint64_t bytes = 0;  // about as much work as so many bytes
};

struct Source {
  SourceOptions options;
  std::filesystem::path path;
  // "jsonl", "json", "csv", "tsv", "parquet", "text", "images" or "idx"
  std::string format;
  // of the file as it is; of several files: of what sha256sum prints for them, by name
  std::string sha256;
  std::vector<Block> blocks;
  std::vector<std::string> header;  // the columns of a table
  std::vector<std::string> files;   // of a folder: paths within it, sorted

  bool skips_bad_rows() const { return options.on_error == "skip"; }
  std::uint64_t bytes() const;
  /// Bytes begin .. end - 1 of its one file, unpacked. It stays open for the next block, so that a
  /// gzipped one is unpacked once and not once a block.
  std::string range(std::uint64_t begin, std::uint64_t end) const;

  mutable std::shared_ptr<UnpackedFile> open = nullptr;  // by range
};

/// Whether this Attune was built with Arrow.
bool reads_parquet();

nlohmann::json to_json(const Source& source);
/// What to_json said of a source, scanned by another rank.
Source source_from(const SourceOptions& options, const std::filesystem::path& path,
                   const nlohmann::json& scanned);

/// Reads it once, from end to end. Error when it is absent, empty, of no known form, in UTF-16, or
/// not what its sha256 says.
Source scan_source(const SourceOptions& options, const std::filesystem::path& path);

/// The records of a block, in order. They keep the row they begin on (lines of JSON Lines and
/// tables, from 1; elsewhere the record's number), and the source's path as the recipe has it (a
/// folder's: with the file's).
///
/// Ill-formed UTF-8 is replaced by U+FFFD and counted as a change. A row that cannot be read is a
/// BadRow with file, row and the cure, or is dropped and counted when the source skips bad rows.
///
/// jsonl: one object a line. json: one list of objects. csv as in RFC 4180 (quoted fields may hold
/// delimiters, quotes as "" and line breaks); tsv as IANA registered it: nothing is quoted; the
/// first line of both names the columns. CRLF, a byte order mark and empty lines are accepted.
/// parquet: a row's columns. text: a folder, each file a record with the field `text`. images: a
/// folder of folders of PNG and JPEG files; the inner folder's name is the field `label`. idx:
/// pictures and, in a file of their own, labels. All may be gzipped.
void read_block(const Source& source, const Block& block, Ledger& ledger,
                const std::function<void(Record&)>& use);

}  // namespace attune
