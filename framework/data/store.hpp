// The data file, format version 1: groups of columns in HDF5.
//
//   /                 format = "attune-dataset", version = 1, name, kind, labels, licence, recipe,
//                     sources, sources_sha256, tokenizer_sha256, rejected (JSON), created
//   /train            sha256 = of the split's content; likewise /validation, /test
//   /train/tokens            a ragged column: all values end to end ...
//   /train/tokens.offsets    ... and where each sample begins, int64 [n + 1]
//   /train/label             a fixed column: [n, ...]
#pragma once
#include <attune/chat_source.hpp>
#include <attune/comm.hpp>
#include <attune/dataset.hpp>
#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hdf5/hdf5.hpp"

namespace attune {

inline constexpr const char* data_format = "attune-dataset";
inline constexpr std::int64_t data_version = 1;
/// A ragged column's offsets stand beside it under its name and this.
inline constexpr const char* offsets_suffix = ".offsets";

/// One split. Every rank reads what it needs; nothing here is collective. Threads may share it.
class Split {
 public:
  /// Checks columns and shapes, and that offsets begin and end as they must; all of them are read,
  /// and checked, when they are first needed. Error with file and dataset when they do not agree.
  explicit Split(hdf5::Group group);
  Split(Split&&) noexcept;
  ~Split();

  std::int64_t size() const;
  /// Samples in the order of rows; neighbouring rows are read at once. Rows must be below size().
  std::vector<Sample> read(std::span<const std::int64_t> rows) const;
  std::vector<std::string> columns() const;
  /// False, too, for a column that is not there.
  bool ragged(const std::string& column) const;
  /// A ragged column of int32: token ids.
  bool holds_tokens(const std::string& column) const;
  /// The elements of all samples end to end; [samples, ...] for a fixed column.
  const hdf5::Dataset& values(const std::string& column) const;
  /// Elements of a ragged column in each sample, without reading the column.
  std::vector<std::int64_t> lengths(const std::string& column) const;
  /// As noted when the file was made.
  std::string sha256() const;
  /// Reads everything; Error when the content is not what it was when the file was made.
  void verify() const;

 private:
  struct Column;
  const Column& column(const std::string& name) const;
  hdf5::Group group_;
  std::map<std::string, Column> columns_;
  std::int64_t size_ = 0;
};

class DataFile {
 public:
  /// Error, on all ranks alike, when it is not a data file of this version or its splits do not
  /// hold together.
  static DataFile open(const std::filesystem::path& path, const Comm& comm = {});

  const std::filesystem::path& path() const { return path_; }
  std::string name() const { return text("name"); }
  std::string kind() const { return text("kind"); }  // the dataset plugin
  std::string licence() const { return text("licence"); }
  std::string recipe() const { return text("recipe"); }
  std::string tokenizer_sha256() const { return text("tokenizer_sha256"); }
  std::string text(const std::string& attribute) const {
    return root_.attributes().text(attribute);
  }
  /// Label names by id; empty when the kind has none.
  std::vector<std::string> labels() const;
  /// How the conversations of the samples are written.
  struct Chat {
    ChatSource source;  // an empty text: the samples hold none, or the file is older than this
    std::string form;   // the form that the recipe names; "": it names none
  };
  Chat chat() const;
  /// By label; empty unless the recipe asked for them.
  std::vector<double> class_weights() const;
  /// Source names with their SHA-256.
  std::vector<std::pair<std::string, std::string>> sources() const;

  std::vector<std::string> splits() const;
  bool has(const std::string& split) const { return splits_.contains(split); }
  /// Error listing the splits when there is none of that name.
  const Split& split(const std::string& name) const;

 private:
  DataFile(const std::filesystem::path& path);
  std::string long_text(const std::string& attribute) const;
  std::filesystem::path path_;
  hdf5::Group root_;
  std::map<std::string, Split> splits_;
};

/// SHA-256 of a tokenizer.json, whatever its layout: what DataFile::tokenizer_sha256 holds.
std::string tokenizer_sha256(const nlohmann::json& tokenizer);

/// SHA-256 over every dataset of a split in the order of their names: its name, a zero byte, its
/// elements (little-endian).
std::string content_sha256(const hdf5::Group& split);

/// These samples as a batch whose ids are their rows. A Fault when the plugin does not make as many
/// samples of every row.
Batch collate(const Dataset& dataset, const std::vector<Sample>& samples,
              std::span<const std::int64_t> rows);

/// These rows, read and collated.
Batch load_batch(const Split& split, const Dataset& dataset, std::span<const std::int64_t> rows);

}  // namespace attune
