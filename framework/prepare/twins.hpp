// Records that are equal, or nearly.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "prepare/spill.hpp"

namespace attune {

/// MinHash signatures cut into bands (Broder 1997, "On the resemblance and containment of
/// documents"; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3): texts that
/// are alike in a share s of their runs of three words agree in one of 128 minimal hashes with
/// probability s, and in all `rows` of at least one band with 1 - (1 - s^rows)^bands.
struct Banding {
  int bands;
  int rows;
  /// Finds pairs of that similarity with a probability of 99 % or more, with as few candidates as
  /// that allows.
  static Banding for_similarity(double similarity);
};

/// The bands of a record: a hash each. Words are runs of letters and digits, case aside; a record
/// of fewer than three words is one run.
std::vector<std::uint64_t> bands_of(const Record& record, const Banding& banding);

/// The bands of the records that one rank read.
class BandWriter {
 public:
  BandWriter(const std::filesystem::path& folder, int rank, const Banding& banding);
  void add(const Record& record);
  void close();

 private:
  Banding banding_;
  std::vector<OutFile> files_;
};

/// Groups of two or more, each ascending; the groups in no order. Memory: about 24 bytes a record
/// and not over 256 MiB, whatever their number.
using UseGroup = std::function<void(const std::vector<std::uint64_t>&)>;
void for_each_equal_group(const Records& records, const UseGroup& use);

/// Candidates are compared by the exact share of their runs (Jaccard); what is alike pair by pair
/// ends up in one group, also along a chain. counts: records of each rank. Memory: about 24 bytes a
/// record.
void for_each_near_group(const Records& records, const std::filesystem::path& folder,
                         const std::vector<std::int64_t>& counts, const Banding& banding,
                         double similarity, const UseGroup& use);

}  // namespace attune
