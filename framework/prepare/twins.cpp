#include "prepare/twins.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "prepare/texts.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

constexpr int hashes = 128;
constexpr std::size_t shingle_words = 3;

/// SplitMix64's finaliser (Steele, Lea and Flood 2014): one number from another, well mixed.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// FNV-1a (Fowler, Noll and Vo), mixed.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return mixed(hash);
}

bool is_word_byte(unsigned char c) { return std::isalnum(c) || c >= 0x80; }

void append_word_hashes(std::string text, std::vector<std::uint64_t>& words) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(c < 0x80 ? std::tolower(c) : c); });
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = at;
    while (at < text.size() && is_word_byte(static_cast<unsigned char>(text[at]))) ++at;
    if (at > begin) words.push_back(hash_of(std::string_view(text).substr(begin, at - begin)));
    if (at == begin) ++at;
  }
}

/// The record's runs of three words, as sorted distinct hashes.
std::vector<std::uint64_t> shingles_of(const Record& record) {
  std::vector<std::uint64_t> words;
  std::vector<std::uint64_t> shingles;
  for_each_text(record, [&](const std::string& text) { append_word_hashes(text, words); });
  const auto length = std::min(shingle_words, words.size());
  for (std::size_t i = 0; i + length <= words.size() && length > 0; ++i) {
    std::uint64_t shingle = 0;
    for (std::size_t j = i; j < i + length; ++j) shingle = mixed(shingle ^ words[j]);
    shingles.push_back(shingle);
  }
  std::sort(shingles.begin(), shingles.end());
  shingles.erase(std::unique(shingles.begin(), shingles.end()), shingles.end());
  return shingles;
}

double jaccard(const std::vector<std::uint64_t>& a, const std::vector<std::uint64_t>& b) {
  std::vector<std::uint64_t> common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  const auto all = a.size() + b.size() - common.size();
  return all == 0 ? 1 : static_cast<double>(common.size()) / static_cast<double>(all);
}

fs::path band_file(const fs::path& folder, int rank, int band) {
  return folder / fmt::format("bands-{}-{}", rank, band);
}

/// Sets that grow together; the smallest number stands for its set.
class DisjointSets {
 public:
  explicit DisjointSets(std::size_t size) : parents_(size) {
    std::iota(parents_.begin(), parents_.end(), 0u);
  }
  std::uint32_t find(std::uint32_t x) {
    while (parents_[x] != x) x = parents_[x] = parents_[parents_[x]];
    return x;
  }
  void join(std::uint32_t a, std::uint32_t b) {
    a = find(a);
    b = find(b);
    parents_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<std::uint32_t> parents_;
};

/// Runs of equal keys of two or more: use(first, end).
template <class Iterator, class Key, class Use>
void for_each_run(Iterator begin, Iterator end, Key key, Use use) {
  while (begin != end) {
    const auto stop =
        std::find_if(begin, end, [&](const auto& one) { return key(one) != key(*begin); });
    if (stop - begin > 1) use(begin, stop);
    begin = stop;
  }
}

}  // namespace

Banding Banding::for_similarity(double similarity) {
  constexpr double wanted = 0.99;
  for (int rows = hashes; rows > 1; --rows) {
    const int bands = hashes / rows;
    if (1 - std::pow(1 - std::pow(similarity, rows), bands) >= wanted) return {bands, rows};
  }
  return {hashes, 1};
}

std::vector<std::uint64_t> bands_of(const Record& record, const Banding& banding) {
  std::vector<std::uint64_t> minima(static_cast<std::size_t>(banding.bands * banding.rows),
                                    UINT64_MAX);
  const auto shingles = shingles_of(record);
  // What has no words (pictures) is like its equals alone.
  if (shingles.empty())
    return std::vector<std::uint64_t>(static_cast<std::size_t>(banding.bands),
                                      fingerprint_of(record)[0]);
  for (const auto shingle : shingles)
    for (std::size_t i = 0; i < minima.size(); ++i)
      minima[i] = std::min(minima[i], mixed(shingle ^ (0x2545f4914f6cdd1d * (i + 1))));
  std::vector<std::uint64_t> bands;
  for (std::size_t first = 0; first < minima.size();
       first += static_cast<std::size_t>(banding.rows)) {
    std::uint64_t hash = 0;
    for (int row = 0; row < banding.rows; ++row)
      hash = mixed(hash ^ minima[first + static_cast<std::size_t>(row)]);
    bands.push_back(hash);
  }
  return bands;
}

BandWriter::BandWriter(const fs::path& folder, int rank, const Banding& banding)
    : banding_(banding) {
  for (int band = 0; band < banding.bands; ++band)
    files_.emplace_back(band_file(folder, rank, band));
}

void BandWriter::add(const Record& record) {
  const auto bands = bands_of(record, banding_);
  for (std::size_t band = 0; band < bands.size(); ++band) files_[band].write(bands[band]);
}

void BandWriter::close() {
  for (auto& file : files_) file.close();
}

void for_each_equal_group(const Records& records, const UseGroup& use) {
  struct Keyed {
    Fingerprint fingerprint;
    std::uint64_t number;
    auto operator<=>(const Keyed&) const = default;
  };
  constexpr std::uint64_t largest = (256 << 20) / sizeof(Keyed);
  const auto parts = records.size() / largest + 1;  // by fingerprint, one after the other
  for (std::uint64_t part = 0; part < parts; ++part) {
    std::vector<Keyed> keyed;
    records.for_each([&](auto number, const RecordEntry& entry, int) {
      if (entry.fingerprint[0] % parts == part) keyed.push_back({entry.fingerprint, number});
    });
    std::sort(keyed.begin(), keyed.end());
    for_each_run(
        keyed.begin(), keyed.end(), [](const Keyed& one) { return one.fingerprint; },
        [&](auto begin, auto end) {
          std::vector<std::uint64_t> group;
          for (; begin != end; ++begin) group.push_back(begin->number);
          use(group);
        });
  }
}

void for_each_near_group(const Records& records, const fs::path& folder,
                         const std::vector<std::int64_t>& counts, const Banding& banding,
                         double similarity, const UseGroup& use) {
  if (records.size() > UINT32_MAX)
    fail(
        "there are too many records ({}) for near-duplicate detection; use deduplicate = \"exact\"",
        records.size());
  DisjointSets sets(records.size());
  using Keyed = std::pair<std::uint64_t, std::uint32_t>;
  std::vector<Keyed> keyed;
  for (int band = 0; band < banding.bands; ++band) {
    keyed.clear();
    for (std::size_t rank = 0; rank < counts.size(); ++rank)
      for (const auto hash :
           read_elements<std::uint64_t>(band_file(folder, static_cast<int>(rank), band), 0,
                                        static_cast<std::uint64_t>(counts[rank])))
        keyed.emplace_back(hash, static_cast<std::uint32_t>(keyed.size()));
    std::sort(keyed.begin(), keyed.end());
    for_each_run(
        keyed.begin(), keyed.end(), [](const Keyed& one) { return one.first; },
        [&](auto begin, auto end) {
          // Each joins the first that is like it; those unlike all before them are kept to compare
          // with.
          std::vector<std::pair<std::uint32_t, std::vector<std::uint64_t>>> unlike;
          for (auto one = begin; one != end; ++one) {
            const auto known = std::find_if(unlike.begin(), unlike.end(), [&](const auto& other) {
              return sets.find(other.first) == sets.find(one->second);
            });
            if (known != unlike.end()) continue;
            auto shingles = shingles_of(records.read(one->second));
            const auto like = std::find_if(unlike.begin(), unlike.end(), [&](const auto& other) {
              return jaccard(other.second, shingles) >= similarity;
            });
            if (like != unlike.end()) {
              sets.join(like->first, one->second);
            } else {
              unlike.emplace_back(one->second, std::move(shingles));
            }
          }
        });
  }
  std::vector<Keyed> members;  // of sets: (its smallest, member)
  for (std::uint32_t i = 0; i < records.size(); ++i) members.emplace_back(sets.find(i), i);
  std::sort(members.begin(), members.end());
  for_each_run(
      members.begin(), members.end(), [](const Keyed& one) { return one.first; },
      [&](auto begin, auto end) {
        std::vector<std::uint64_t> group;
        for (; begin != end; ++begin) group.push_back(begin->second);
        use(group);
      });
}

}  // namespace attune
