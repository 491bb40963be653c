// Writes the columns of a split from all ranks, in rounds.
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
  /// rounds: number of append() calls. With a single round, columns are stored without room to
  /// grow.
  SplitWriter(const hdf5::Group& root, const std::string& name, std::size_t rounds,
              const Comm& comm);

  /// Description of this rank's samples in a round, for the other ranks.
  static nlohmann::json summary(const std::vector<Sample>& samples);
  /// Appends a round, ordered by rank. summaries: of all ranks. Fault if the samples' columns
  /// differ. Collective.
  void append(const std::vector<Sample>& samples, const std::vector<nlohmann::json>& summaries);

  std::int64_t samples() const { return samples_; }

 private:
  struct Column {
    at::ScalarType dtype;
    bool ragged;
    std::vector<std::int64_t> item;  // shape of one row of the dataset
    hdf5::Dataset values;
    std::optional<hdf5::Dataset> offsets;  // for a ragged column
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
