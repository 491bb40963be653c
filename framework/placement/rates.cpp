#include "placement/rates.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace attune::placement {
namespace {

constexpr double still_usual = 0.8;  // of the median

}  // namespace

double median(const std::vector<RankRate>& ranks) {
  std::vector<double> rates;
  for (const auto& rank : ranks) rates.push_back(rank.rate);
  if (rates.empty()) return 0;
  std::ranges::sort(rates);
  return rates[(rates.size() - 1) / 2];
}

std::vector<std::string> outliers(const std::string& what, const std::vector<RankRate>& ranks) {
  const double usual = median(ranks);
  std::vector<std::string> sentences;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank)
    if (ranks[rank].rate < still_usual * usual)
      sentences.push_back(fmt::format("rank {} on {}: {} at {:.0f} % of the median rank", rank,
                                      ranks[rank].host, what, 100 * ranks[rank].rate / usual));
  return sentences;
}

}  // namespace attune::placement
