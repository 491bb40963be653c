// The data file, format version 1: groups of columns in HDF5.
//
//   /                 format = "attune-dataset", version = 1, name, kind, labels, licence, recipe,
//                     sources, sources_sha256, tokenizer_sha256, rejected (JSON), created
//   /train            sha256 = hash of the split's content; the same for /validation, /test
//   /train/tokens            a ragged column: all values, concatenated ...
//   /train/tokens.offsets    ... and the start of each sample, int64 [n + 1]
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
/// Suffix of the dataset with a ragged column's offsets.
inline constexpr const char* offsets_suffix = ".offsets";

/// One split. Not collective: every rank reads the rows it needs. Thread-safe.
class Split {
 public:
  /// Checks columns, shapes, and the first and last offsets. All offsets are read and checked on
  /// first use. Error with file and dataset for any inconsistency.
  explicit Split(hdf5::Group group);
  Split(Split&&) noexcept;
  ~Split();

  std::int64_t size() const;
  /// Reads samples in the order of `rows`; consecutive rows are read together. Rows must be below
  /// size().
  std::vector<Sample> read(std::span<const std::int64_t> rows) const;
  std::vector<std::string> columns() const;
  /// Whether the column is ragged; false if it does not exist.
  bool ragged(const std::string& column) const;
  /// Whether the column is a ragged int32 column, i.e. token ids.
  bool holds_tokens(const std::string& column) const;
  /// A ragged column's elements of all samples, concatenated; [samples, ...] for a fixed column.
  const hdf5::Dataset& values(const std::string& column) const;
  /// Number of elements of a ragged column in each sample. Does not read the column itself.
  std::vector<std::int64_t> lengths(const std::string& column) const;
  /// Hash of the content recorded in the file.
  std::string sha256() const;
  /// Reads the whole split. Error if its content differs from the recorded hash.
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
  /// Error, identical on all ranks, if the file is not a data file of this version or its splits
  /// are inconsistent.
  static DataFile open(const std::filesystem::path& path, const Comm& comm = {});

  const std::filesystem::path& path() const { return path_; }
  std::string name() const { return text("name"); }
  std::string kind() const { return text("kind"); }  // name of the dataset plugin
  std::string licence() const { return text("licence"); }
  std::string recipe() const { return text("recipe"); }
  std::string tokenizer_sha256() const { return text("tokenizer_sha256"); }
  std::string text(const std::string& attribute) const {
    return root_.attributes().text(attribute);
  }
  /// Label names by id; empty if the kind has no labels.
  std::vector<std::string> labels() const;
  /// Format in which the samples' conversations are written.
  struct Chat {
    ChatSource source;  // empty if there are no conversations, or if the file predates this field
    std::string form;   // chat format named by the recipe; "" if none
  };
  Chat chat() const;
  /// Weights by label; empty unless the recipe requested them.
  std::vector<double> class_weights() const;
  /// Source names with their SHA-256 hashes.
  std::vector<std::pair<std::string, std::string>> sources() const;

  std::vector<std::string> splits() const;
  bool has(const std::string& split) const { return splits_.contains(split); }
  /// Error for an unknown name; it lists the splits.
  const Split& split(const std::string& name) const;

 private:
  DataFile(const std::filesystem::path& path);
  std::string long_text(const std::string& attribute) const;
  std::filesystem::path path_;
  hdf5::Group root_;
  std::map<std::string, Split> splits_;
};

/// SHA-256 of a tokenizer.json, independent of its formatting; the value of
/// DataFile::tokenizer_sha256.
std::string tokenizer_sha256(const nlohmann::json& tokenizer);

/// SHA-256 over all datasets of a split, ordered by name: the name, a zero byte, and the elements
/// (little-endian).
std::string content_sha256(const hdf5::Group& split);

/// Collates samples into a batch whose ids are `rows`. Fault if the plugin does not make the same
/// number of samples from every row.
Batch collate(const Dataset& dataset, const std::vector<Sample>& samples,
              std::span<const std::int64_t> rows);

/// Reads and collates these rows.
Batch load_batch(const Split& split, const Dataset& dataset, std::span<const std::int64_t> rows);

}  // namespace attune
