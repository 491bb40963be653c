// SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195): a random number generator
// with one word of state, also used as a hash.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace attune {

class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t state) : state_(state) {}

  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  /// A uniform number below bound, without bias (Lemire 2019, arXiv:1805.10941).
  std::uint64_t below(std::uint64_t bound) {
    __extension__ using Wide = unsigned __int128;
    Wide product = static_cast<Wide>((*this)()) * bound;
    for (const std::uint64_t smallest = -bound % bound;
         static_cast<std::uint64_t>(product) < smallest;)
      product = static_cast<Wide>((*this)()) * bound;
    return static_cast<std::uint64_t>(product >> 64);
  }

 private:
  std::uint64_t state_;
};

/// Combines several numbers into a seed; depends on all of them and on their order.
inline std::uint64_t mixed(std::initializer_list<std::uint64_t> numbers) {
  std::uint64_t state = 0;
  for (const auto number : numbers) state = SplitMix64(state ^ SplitMix64(number)())();
  return state;
}

inline std::uint64_t hash_of_name(std::string_view name) {
  std::uint64_t hash = 0;
  for (const unsigned char letter : name) hash = mixed({hash, letter});
  return hash;
}

}  // namespace attune
