// The columns of a split, written by all ranks, a round at a time.
#pragma once
#include <attune/comm.hpp>
#include <attune/dataset.hpp>
#include <nlohmann/json.hpp>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hdf5/hdf5.hpp"

namespace attune {

class SplitWriter {
 public:
  /// rounds: how often append will be called; the columns of a single one are stored without room
  /// for more.
  SplitWriter(const hdf5::Group& root, const std::string& name, std::size_t rounds,
              const Comm& comm);

  /// What the other ranks have to know of this rank's samples of a round.
  static nlohmann::json summary(const std::vector<Sample>& samples);
  /// Appends the round: rank 0's samples, then rank 1's ... Collective. summaries: of all ranks. A
  /// Fault when samples have not all the same columns.
  void append(const std::vector<Sample>& samples, const std::vector<nlohmann::json>& summaries);

  std::int64_t samples() const { return samples_; }

 private:
  struct Column {
    at::ScalarType dtype;
    bool ragged;
    std::vector<std::int64_t> item;  // shape of one row of the dataset
    hdf5::Dataset values;
    std::optional<hdf5::Dataset> offsets;  // of a ragged column
  };
  Column& column(const std::string& name, const nlohmann::json& form, std::int64_t elements,
                 std::int64_t samples);
  void append_column(const std::string& name, const nlohmann::json& form,
                     const std::vector<Sample>& samples,
                     const std::vector<nlohmann::json>& summaries);
  void write_rows(const hdf5::Dataset& dataset, std::int64_t first, const at::Tensor& rows) const;

  hdf5::Dataset create(const std::string& name, at::ScalarType dtype,
                       const std::vector<std::int64_t>& item, std::int64_t rows) const;

  hdf5::Group group_;
  std::size_t rounds_;
  const Comm& comm_;
  std::map<std::string, Column> columns_;
  std::int64_t samples_ = 0;
};

}  // namespace attune
