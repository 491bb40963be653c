// What strategies report, on 1, 2 and 4 ranks that report different names, some of them nothing.
#include "train/scalars.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "errors.hpp"
#include "parallel/mpi.hpp"

namespace attune::train {
namespace {

using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = world();
  return comm;
}

/// Micro-batch i reports "all"; every third one "some"; the first alone "first". Sums whose order
/// shows in the last bit.
std::map<std::string, ScalarSum> reported(std::int64_t micro_batch) {
  std::map<std::string, ScalarSum> scalars{
      {"all", {1.0 / (3.0 + static_cast<double>(micro_batch)), 2.0}}};
  if (micro_batch % 3 == 0)
    scalars["some/of.them"] = {1e16 / (1.0 + static_cast<double>(micro_batch)), 1.0};
  if (micro_batch == 0) scalars["first"] = {std::nan(""), 1.0};
  if (micro_batch == 1) scalars["nothing"] = {0.0, 0.0};
  return scalars;
}

std::map<std::string, double> expected(std::int64_t micro_batches) {
  std::map<std::string, ScalarSum> totals;
  for (std::int64_t i = 0; i < micro_batches; ++i)
    for (const auto& [name, scalar] : reported(i)) {
      totals[name].sum += scalar.sum;
      totals[name].count += scalar.count;
    }
  std::map<std::string, double> means;
  for (const auto& [name, total] : totals)
    if (total.count > 0) means[name] = total.sum / total.count;
  return means;
}

TEST(Scalars, AreTheSameWhicheverRankReportsThem) {
  for (const std::int64_t micro_batches : {1, 3, 11}) {
    ScalarSums sums;
    for (std::int64_t i = 0; i < micro_batches; ++i)
      if (i % all().size() == all().rank()) sums.add(i, reported(i));
    const auto means = sums.means(all());
    const auto wanted = expected(micro_batches);
    ASSERT_EQ(means.size(), wanted.size());
    for (const auto& [name, mean] : wanted)
      EXPECT_TRUE(means.at(name) == mean || (std::isnan(mean) && std::isnan(means.at(name))))
          << name << " to the last bit";
    EXPECT_TRUE(std::isnan(means.at("first")));
    EXPECT_FALSE(means.contains("nothing")) << "of no value there is no mean";
  }
}

TEST(Scalars, OfOneRankReachAll) {
  ScalarSums sums;
  if (all().rank() == all().size() - 1)
    sums.add(5, {{"infinite", {INFINITY, 1}}, {"rewards/margins", {-0.1, 3}}});
  EXPECT_EQ(sums.means(all()),
            (std::map<std::string, double>{{"infinite", INFINITY}, {"rewards/margins", -0.1 / 3}}));
}

TEST(Scalars, HaveNamesThatAreKeys) {
  for (const auto* name : {"", "two words", "line\nbreak", "\xff"})
    EXPECT_THAT(error_of([&] { ScalarSums().add(0, {{name, {1, 1}}}); }),
                HasSubstr("a name may contain letters, digits and _ / . -"))
        << name;
}

}  // namespace
}  // namespace attune::train
