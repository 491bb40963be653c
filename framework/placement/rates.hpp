// Rates that ranks measured of themselves, compared.
#pragma once
#include <string>
#include <vector>

namespace attune::placement {

struct RankRate {
  std::string host;
  double rate = 0;  // a rank's, by rank; larger is better
};

/// Of the middle rank; of an even number, the lower one of two. 0 without ranks.
double median(const std::vector<RankRate>& ranks);

/// One sentence for each rank whose rate is below four fifths of the median, such as "rank 3 on n2:
/// matrix products at 55 % of the median rank". what: "matrix products".
std::vector<std::string> outliers(const std::string& what, const std::vector<RankRate>& ranks);

}  // namespace attune::placement
