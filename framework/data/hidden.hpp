// Cache file for hidden states: the output of a model's first parts for every row of a split.
//
//   /                 format = "attune-hidden", key = hash of the inputs,
//                     item = shape of the state at one position
//   /hidden           all rows concatenated, each position's state flat; float32 or bfloat16
//   /hidden.offsets   start of each row, int64 [rows + 1]
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hdf5/hdf5.hpp"

namespace attune {

class Model;
class Split;

/// Reader for such a file. Thread-safe.
class HiddenStates {
 public:
  struct MadeBy {
    const Model* model = nullptr;
    std::int64_t parts = 0;
  };
  /// Null if the file does not exist or has another key.
  static std::shared_ptr<const HiddenStates> open(const std::filesystem::path& path,
                                                  const std::string& key, const MadeBy& made_by);
  ~HiddenStates();

  /// The concatenated states of these rows, [positions, item...]. Error if the file is damaged.
  at::Tensor read(std::span<const std::int64_t> rows) const;
  std::int64_t rows() const;
  const MadeBy& made_by() const { return made_by_; }

 private:
  HiddenStates(std::vector<std::int64_t> shape, MadeBy made_by, std::unique_ptr<const Split> split);
  std::vector<std::int64_t> shape_;  // [-1, item...]
  MadeBy made_by_;
  std::unique_ptr<const Split> split_;
};

/// Writes hidden states row by row, under a temporary name until finish().
class HiddenWriter {
 public:
  /// states: any example of the states, for the shape of an item.
  HiddenWriter(std::filesystem::path path, const std::string& key, const at::Tensor& states);
  ~HiddenWriter();
  HiddenWriter(const HiddenWriter&) = delete;
  HiddenWriter& operator=(const HiddenWriter&) = delete;

  /// Appends rows: their concatenated states [positions, item...], and the number of positions of
  /// each row.
  void append(const at::Tensor& states, std::span<const std::int64_t> positions);
  /// Flushes the file to disk and renames it to its final name.
  void finish();

 private:
  std::filesystem::path path_;
  std::filesystem::path unfinished_;
  std::unique_ptr<hdf5::Group> root_;
  std::unique_ptr<hdf5::Dataset> values_;
  std::vector<std::int64_t> offsets_{0};
};

}  // namespace attune
