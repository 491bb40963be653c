// Conversion of raw files to records. Each source is scanned once for its checksum and is divided
// into blocks at record boundaries, which ranks then read independently.
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

/// A range of a source with whole records: bytes of the decompressed file, or indices of its files,
/// images or row groups.
struct Block {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::int64_t first_row = 1;
  std::uint64_t bytes = 0;  // approximate cost, in bytes
};

struct Source {
  SourceOptions options;
  std::filesystem::path path;
  // "jsonl", "json", "csv", "tsv", "parquet", "text", "images" or "idx"
  std::string format;
  // hash of the original file; for several files: of sha256sum's output for them, sorted by name
  std::string sha256;
  std::vector<Block> blocks;
  std::vector<std::string> header;  // column names of a table
  std::vector<std::string> files;   // for a folder: relative paths, sorted

  bool skips_bad_rows() const { return options.on_error == "skip"; }
  std::uint64_t bytes() const;
  /// Bytes begin .. end - 1 of its single file, decompressed. The file stays open between blocks,
  /// so a gzipped one is decompressed only once.
  std::string range(std::uint64_t begin, std::uint64_t end) const;

  mutable std::shared_ptr<UnpackedFile> open = nullptr;  // opened by range()
};

/// Whether Attune was built with Arrow.
bool reads_parquet();

nlohmann::json to_json(const Source& source);
/// A source from the to_json() of another rank that scanned it.
Source source_from(const SourceOptions& options, const std::filesystem::path& path,
                   const nlohmann::json& scanned);

/// Scans a source once from start to end. Error if it is missing, empty, of unknown format, in
/// UTF-16, or differs from its sha256.
Source scan_source(const SourceOptions& options, const std::filesystem::path& path);

/// Reads the records of a block, in order. Their row is the line on which they begin (JSON Lines
/// and tables, from 1) or their number (other formats). Their source is the path in the recipe, and
/// for a folder also the file.
///
/// Invalid UTF-8 is replaced by U+FFFD and counted as a change. An unreadable row is a BadRow with
/// file, row and advice; it is dropped and counted if the source skips bad rows.
///
/// jsonl: one object per line. json: one list of objects. csv: RFC 4180 (quoted fields may contain
/// delimiters, quotes as "" and line breaks). tsv: as registered with IANA, without quoting. The
/// first line of csv and tsv has the column names. CRLF, a byte order mark and empty lines are
/// accepted. parquet: columns of a row. text: a folder; each file is a record with field `text`.
/// images: a folder of folders of PNG and JPEG files; the inner folder's name is the field `label`.
/// idx: images and, in a separate file, labels. All formats may be gzipped.
void read_block(const Source& source, const Block& block, Ledger& ledger,
                const std::function<void(Record&)>& use);

}  // namespace attune
