// Assignment of records to splits, and of their encoding to ranks. One rank computes it from
// metadata of all records.
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
  std::uint32_t rank;     // rank that read it
  std::uint32_t source;   // index in the recipe
  std::uint32_t variant;  // 0: unchanged; otherwise the number of the augmented copy
};

/// The draws of a split are in a file of the working folder, in sample order. In round i, rank r
/// encodes draws cuts[i * ranks + r] to cuts[i * ranks + r + 1] - 1.
struct SplitPlan {
  std::vector<std::uint64_t> cuts;
};

struct Plan {
  std::map<std::string, SplitPlan> splits;
  std::vector<std::string> labels;
  std::vector<double> class_weights;  // by label; empty unless [balance] requests them
};

/// The label that equals `name` as text or, failing that, as a number ("1.0" for "1").
std::string named_in(const std::vector<std::string>& labels, const std::string& name);

std::filesystem::path draws_file(const std::filesystem::path& folder, const std::string& split);
nlohmann::json to_json(const Plan& plan);
Plan plan_from(const nlohmann::json& json);

/// The values of field `label`, with the model outputs that their records need.
class Strata {
 public:
  /// Number of a record's label; no_stratum if it has none.
  std::uint32_t number(const Record& record, const std::vector<std::string>& names);
  nlohmann::json to_json() const;

 private:
  std::map<std::string, std::uint32_t> numbers_;
  std::vector<std::vector<std::string>> names_;
  // from records without a label, or that need other outputs than the first record with their label
  std::set<std::string> other_names_;
};

/// Records read by all ranks together.
struct Reading {
  std::filesystem::path folder;
  std::vector<std::int64_t> counts;    // number of records by rank
  std::vector<nlohmann::json> strata;  // by rank
  int ranks() const { return static_cast<int>(counts.size()); }
};

/// Drops duplicates, assigns splits, removes leakage, draws by weight and balance, and writes the
/// draws of every split. Memory: about 30 bytes per record.
Plan make_plan(const Recipe& recipe, const Reading& reading, Ledger& ledger);

}  // namespace attune
