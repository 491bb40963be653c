// Values made ahead: the order holds, failures arrive, and no thread stays behind. Runs under
// ThreadSanitizer.
#include "data/prefetch.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

namespace attune {
namespace {
using namespace std::chrono_literals;

/// 0, 1, 2, ...; counts what it made, and fails at one of them.
struct Counter {
  std::shared_ptr<std::atomic<int>> made = std::make_shared<std::atomic<int>>(0);
  int fails_at = -1;
  int operator()() const {
    const int value = (*made)++;
    if (value == fails_at)
      throw std::runtime_error("value " + std::to_string(value) + " cannot be made");
    return value;
  }
};

int threads() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("Threads:")) return std::stoi(line.substr(8));
  return -1;
}

TEST(Prefetch, GivesTheSeriesInOrderWhateverIsAhead) {
  for (const std::size_t ahead : {0, 1, 2, 7}) {
    Prefetch<int> values(Counter(), ahead);
    for (int i = 0; i < 500; ++i) ASSERT_EQ(values.next(), i);
  }
}

TEST(Prefetch, MakesNoMoreThanItMayHold) {
  const Counter counter;
  Prefetch<int> values(counter, 3);
  values.next();
  std::this_thread::sleep_for(50ms);
  EXPECT_LE(*counter.made, 5);  // one taken, three held, one being made
  EXPECT_GE(*counter.made, 4);
}

TEST(Prefetch, HandsOverWhatWasMadeBeforeAFailureAndThenTheFailureAgainAndAgain) {
  for (const std::size_t ahead : {1, 4}) {
    Prefetch<int> values(Counter{.fails_at = 3}, ahead);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(values.next(), i);
    for (int time = 0; time < 2; ++time) try {
        values.next();
        FAIL() << "no failure";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "value 3 cannot be made");
      }
  }
}

TEST(Prefetch, LeavesNoThreadBehindHoweverItEnds) {
  const int before = threads();
  for (int i = 0; i < 50; ++i) {
    Prefetch<int> full(Counter(), 2);
    Prefetch<int> failed(Counter{.fails_at = 0}, 2);
    Prefetch<int> used(Counter(), 2);
    used.next();
  }
  EXPECT_EQ(threads(), before);
}

TEST(Prefetch, MovesValuesThatCannotBeCopied) {
  Prefetch<std::unique_ptr<int>> values(
      [i = std::make_shared<int>(0)] { return std::make_unique<int>((*i)++); }, 2);
  EXPECT_EQ(*values.next(), 0);
  EXPECT_EQ(*values.next(), 1);
}

}  // namespace
}  // namespace attune
