// Detection of duplicates and near-duplicates.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "prepare/spill.hpp"

namespace attune {

/// Parameters of MinHash banding (Broder 1997, "On the resemblance and containment of documents";
/// Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3). Two texts with Jaccard
/// similarity s of their three-word shingles agree in each of 128 minimal hashes with probability
/// s. They agree in all `rows` of at least one band with probability 1 - (1 - s^rows)^bands.
struct Banding {
  int bands;
  int rows;
  /// Parameters that find pairs of that similarity with probability 0.99 or more, with as few
  /// candidates as possible.
  static Banding for_similarity(double similarity);
};

/// One hash per band of a record. Words are runs of letters and digits, ignoring case. A record
/// with fewer than three words is one shingle.
std::vector<std::uint64_t> bands_of(const Record& record, const Banding& banding);

/// Writes the bands of the records that one rank reads.
class BandWriter {
 public:
  BandWriter(const std::filesystem::path& folder, int rank, const Banding& banding);
  void add(const Record& record);
  void close();

 private:
  Banding banding_;
  std::vector<OutFile> files_;
};

/// Groups of identical records, two or more each, in ascending order within a group; groups are
/// unordered. Memory: about 24 bytes per record, at most 256 MiB.
using UseGroup = std::function<void(const std::vector<std::uint64_t>&)>;
void for_each_equal_group(const Records& records, const UseGroup& use);

/// Groups of near-duplicates. Candidates are verified by their exact Jaccard similarity. Groups are
/// transitive: chains of similar pairs form one group. counts: number of records by rank. Memory:
/// about 24 bytes per record.
void for_each_near_group(const Records& records, const std::filesystem::path& folder,
                         const std::vector<std::int64_t>& counts, const Banding& banding,
                         double similarity, const UseGroup& use);

}  // namespace attune
