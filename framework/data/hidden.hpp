// Hidden states kept on disk: what a model's first parts made of every row of a split.
//
//   /                 format = "attune-hidden", key = what they were made from,
//                     item = shape of the state at one position
//   /hidden           of all rows end to end, each position's state flat; float32 or bfloat16
//   /hidden.offsets   where each row begins, int64 [rows + 1]
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

/// For reading, by any thread.
class HiddenStates {
 public:
  struct MadeBy {
    const Model* model = nullptr;
    std::int64_t parts = 0;
  };
  /// Null when there is no such file, or it was made from something else.
  static std::shared_ptr<const HiddenStates> open(const std::filesystem::path& path,
                                                  const std::string& key, const MadeBy& made_by);
  ~HiddenStates();

  /// The states of these rows end to end, [positions, item...]. Error when the file is damaged.
  at::Tensor read(std::span<const std::int64_t> rows) const;
  std::int64_t rows() const;
  const MadeBy& made_by() const { return made_by_; }

 private:
  HiddenStates(std::vector<std::int64_t> shape, MadeBy made_by, std::unique_ptr<const Split> split);
  std::vector<std::int64_t> shape_;  // [-1, item...]
  MadeBy made_by_;
  std::unique_ptr<const Split> split_;
};

/// Writes them row by row, under another name until finish().
class HiddenWriter {
 public:
  /// states: any of those to come, for the shape of an item.
  HiddenWriter(std::filesystem::path path, const std::string& key, const at::Tensor& states);
  ~HiddenWriter();
  HiddenWriter(const HiddenWriter&) = delete;
  HiddenWriter& operator=(const HiddenWriter&) = delete;

  /// The states of rows to come, end to end: [positions, item...], and how many positions each row
  /// has.
  void append(const at::Tensor& states, std::span<const std::int64_t> positions);
  /// On the disk, and under its name.
  void finish();

 private:
  std::filesystem::path path_;
  std::filesystem::path unfinished_;
  std::unique_ptr<hdf5::Group> root_;
  std::unique_ptr<hdf5::Dataset> values_;
  std::vector<std::int64_t> offsets_{0};
};

}  // namespace attune
