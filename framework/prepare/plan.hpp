// Which records become samples of which split, and who encodes them. Decided by one rank from what
// is known of all records.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "prepare/ledger.hpp"
#include "prepare/recipe.hpp"
#include "prepare/spill.hpp"

namespace attune {

/// A record to encode.
struct Draw {
  std::uint64_t offset;
  std::uint32_t bytes;
  std::uint32_t rank;     // that read it
  std::uint32_t source;   // by its place in the recipe
  std::uint32_t variant;  // 0: as it is; others: changed, by this number
};

/// A split's draws stand in a file of the working folder, in the order of the samples. In round i
/// rank r encodes draws cuts[i * ranks + r] .. cuts[i * ranks + r + 1] - 1.
struct SplitPlan {
  std::vector<std::uint64_t> cuts;
};

struct Plan {
  std::map<std::string, SplitPlan> splits;
  std::vector<std::string> labels;
  std::vector<double> class_weights;  // by label; empty unless [balance] asks for them
};

/// The one of these labels that a record's stands for: the same text or, where there is none, the
/// same number ("1.0" for "1").
std::string named_in(const std::vector<std::string>& labels, const std::string& name);

std::filesystem::path draws_file(const std::filesystem::path& folder, const std::string& split);
nlohmann::json to_json(const Plan& plan);
Plan plan_from(const nlohmann::json& json);

/// The values of the field `label`, and the names of outputs that records with it ask for.
class Strata {
 public:
  /// The number of a label; no_stratum: the record has none.
  std::uint32_t number(const Record& record, const std::vector<std::string>& names);
  nlohmann::json to_json() const;

 private:
  std::map<std::string, std::uint32_t> numbers_;
  std::vector<std::vector<std::string>> names_;
  // of records without a label, or that ask for others than the first with theirs
  std::set<std::string> other_names_;
};

/// What the ranks together have read.
struct Reading {
  std::filesystem::path folder;
  std::vector<std::int64_t> counts;    // records, by rank
  std::vector<nlohmann::json> strata;  // by rank
  int ranks() const { return static_cast<int>(counts.size()); }
};

/// Drops duplicates, assigns splits, looks for leaks, draws by weight and balance, and writes the
/// draws of every split. Memory: about 30 bytes a record.
Plan make_plan(const Recipe& recipe, const Reading& reading, Ledger& ledger);

}  // namespace attune
