// Statistics of records that were dropped or changed, by reason, with examples.
#pragma once
#include <attune/dataset.hpp>
#include <attune/error.hpp>
#include <nlohmann/json_fwd.hpp>

#include <map>
#include <string>

namespace attune {

/// Records dropped or changed for one reason.
struct Tally {
  std::int64_t count = 0;
  std::vector<std::string> examples;  // the first few: "train.csv, row 7"
};
using Tallies = std::map<std::string, Tally>;  // by reason

/// "train.csv, row 7"
std::string place_of(const Record& record);

class Ledger {
 public:
  /// listing: also keep dropped records as JSON lines, for `<output>.rejected.jsonl`.
  explicit Ledger(bool listing = false) : listing_(listing) {}

  void drop(const std::string& reason, const Record& record);
  /// For a row that never became a record; text: complete message.
  void drop(const std::string& reason, const std::string& source, std::int64_t row,
            const std::string& text);
  /// For a record whose place is not needed: it is counted, but neither listed nor used as an
  /// example.
  void drop_untold(const std::string& reason) { ++dropped_[reason].count; }
  bool tells(const std::string& reason) const;
  void change(const std::string& what, const std::string& place, std::int64_t count = 1);

  /// Runs `work`. A BadRow is counted as dropped if `skip`, and rethrown otherwise.
  template <class Work>
  void guard(bool skip, const std::string& source, std::int64_t row, Work work) {
    try {
      work();
    } catch (const BadRow& bad) {
      if (!skip) throw;
      drop(bad.reason(), source, row, bad.what());
    }
  }

  const Tallies& dropped() const { return dropped_; }
  /// Number of dropped records, for any reason.
  std::int64_t dropped_count() const;
  const Tallies& changed() const { return changed_; }
  /// Returns and clears the listed lines.
  std::string take_list() { return std::exchange(list_, {}); }

  /// Everything but the list, for merging on another rank.
  nlohmann::json to_json() const;
  /// Merges statistics of later data.
  void add(const nlohmann::json& later);

 private:
  void list(const std::string& reason, const std::string& source, std::int64_t row,
            const std::string& text);
  bool listing_;
  Tallies dropped_;
  Tallies changed_;
  std::string list_;
};

nlohmann::json to_json(const Tallies& tallies);

/// Serialises JSON whose texts may be invalid UTF-8.
std::string dumped(const nlohmann::json& value);

}  // namespace attune
