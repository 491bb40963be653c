#include "train/scalars.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "core/names.hpp"

namespace attune::train {
void ScalarSums::add(std::int64_t micro_batch, const std::map<std::string, ScalarSum>& scalars) {
  for (const auto& [name, scalar] : scalars) {
    if (!is_key(name))
      fail("a strategy reports a scalar '{}': a name may contain letters, digits and _ / . -",
           name);
    reported_.push_back({micro_batch, name, scalar});
  }
}

std::map<std::string, double> ScalarSums::means(const Comm& data) const {
  std::vector<Reported> all;
  for (const auto& text : data.gather(text_of(reported_))) read(text, all);
  std::ranges::sort(all, {},
                    [](const Reported& one) { return std::tie(one.micro_batch, one.name); });
  std::map<std::string, ScalarSum> totals;
  for (const auto& one : all) {
    totals[one.name].sum += one.scalar.sum;
    totals[one.name].count += one.scalar.count;
  }
  std::map<std::string, double> means;
  for (const auto& [name, total] : totals)
    if (total.count != 0) means[name] = total.sum / total.count;  // of no row there is no mean
  return means;
}

/// A line each; numbers in hexadecimal, which is exact, and NaN and infinity as they are.
std::string ScalarSums::text_of(const std::vector<Reported>& all) {
  std::string text;
  for (const auto& one : all)
    text += fmt::format("{} {} {:a} {:a}\n", one.name, one.micro_batch, one.scalar.sum,
                        one.scalar.count);
  return text;
}

void ScalarSums::read(const std::string& text, std::vector<Reported>& all) {
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string::npos;
       begin = end + 1, end = text.find('\n', begin)) {
    Reported one;
    const auto space = text.find(' ', begin);
    one.name = text.substr(begin, space - begin);
    char* at = nullptr;
    one.micro_batch = std::strtoll(text.c_str() + space, &at, 10);
    one.scalar.sum = std::strtod(at, &at);
    one.scalar.count = std::strtod(at, &at);
    all.push_back(std::move(one));
  }
}

}  // namespace attune::train
