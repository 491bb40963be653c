// What happened to records on the way: how many were dropped or changed and why, with the first few
// of each.
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
  /// listing: dropped records are also kept as lines of JSON, for `<output>.rejected.jsonl`.
  explicit Ledger(bool listing = false) : listing_(listing) {}

  void drop(const std::string& reason, const Record& record);
  /// A row that never became a record; the text says what and where.
  void drop(const std::string& reason, const std::string& source, std::int64_t row,
            const std::string& text);
  /// A record dropped for this reason whose place need not be told any more: neither listed nor an
  /// example.
  void drop_untold(const std::string& reason) { ++dropped_[reason].count; }
  bool tells(const std::string& reason) const;
  void change(const std::string& what, const std::string& place, std::int64_t count = 1);

  /// Runs work; a BadRow counts as dropped where bad rows are to be skipped, and goes on otherwise.
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
  /// Records dropped, for any reason.
  std::int64_t dropped_count() const;
  const Tallies& changed() const { return changed_; }
  /// The lines listed since this was last called.
  std::string take_list() { return std::exchange(list_, {}); }

  /// Everything but the list, for another rank to add to its own.
  nlohmann::json to_json() const;
  /// Adds what comes later in the data than all that is here.
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

/// JSON of texts that may not be UTF-8.
std::string dumped(const nlohmann::json& value);

}  // namespace attune
