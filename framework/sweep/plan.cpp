#include "sweep/plan.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <ranges>
#include <set>

#include "core/hash.hpp"
#include "core/names.hpp"

namespace attune::sweep {

void SweepOptions::describe(Schema<SweepOptions>& s) {
  s.key("name", &SweepOptions::name, "name of the sweep and of its directory").required();
  s.key("run", &SweepOptions::run, "run file that every trial starts from").required();
  s.key("output", &SweepOptions::output, "parent folder of the sweep's directory");
  s.key("method", &SweepOptions::method,
        "search method; grid: every combination of the values; random: `trials` random draws; "
        "list: the trials given as [[trial]]")
      .choices({"grid", "random", "list"});
  s.key("trials", &SweepOptions::trials, "number of trials that method = \"random\" draws")
      .at_least(0);
  s.key("seed", &SweepOptions::seed, "random seed of the draws of method = \"random\"").at_least(0);
  s.key("seeds", &SweepOptions::seeds,
        "runs per setting, with the seeds 0, 1, ...; 1: one run with the run file's seed")
      .at_least(1);
  s.key("metric", &SweepOptions::metric,
        "validation metric that ranks the trials; its declaration says whether larger or smaller "
        "is better")
      .names_metric();
  s.key("side_by_side", &SweepOptions::side_by_side,
        "maximum number of concurrent trials; 0: as many as fit on the machine, or as Slurm starts")
      .at_least(0);
  s.key("retries", &SweepOptions::retries, "maximum number of restarts of a failed trial")
      .at_least(0);
  s.key("hours", &SweepOptions::hours,
        "training budget of all trials together, in hours; no trial starts after it is spent; 0: "
        "no limit")
      .at_least(0);
}

void HalvingOptions::describe(Schema<HalvingOptions>& s) {
  s.key("first", &HalvingOptions::first,
        "step of the first comparison; trials are evaluated at every comparison")
      .required()
      .at_least(1);
  s.key("factor", &HalvingOptions::factor,
        "reduction factor: each comparison keeps one trial in this many, and comes at this many "
        "times the steps of the previous one")
      .at_least(2);
}

namespace {

std::string toml_text(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return to_toml(OptionValue(*text));
  if (const auto number = node.value_exact<std::int64_t>()) return std::to_string(*number);
  if (const auto number = node.value_exact<double>()) return to_toml(OptionValue(*number));
  if (const auto truth = node.value_exact<bool>()) return *truth ? "true" : "false";
  std::string text;
  if (const auto* array = node.as_array())
    for (const auto& element : *array) text += (text.empty() ? "" : ", ") + toml_text(element);
  return "[" + text + "]";
}

/// What a key may be: some values, or a range to draw from; and when it is set at all.
struct Range {
  double low = 0;
  double high = 0;
  bool log = false;
  bool whole = false;
};
struct Dimension {
  std::string key;
  std::vector<std::string> values;
  std::optional<Range> range;
  // key, values of which it must have one
  std::vector<std::pair<std::string, std::vector<std::string>>> when;
};

class Reader {
 public:
  explicit Reader(const config::Document& document) : root_(document.root) {
    sweep_.file = document.path;
    problems_.look_elsewhere(where_is);
  }

  Sweep read() {
    if (root_.contains("model") && root_.contains("dataset"))
      fail("{}: is a run file, not a sweep file: give it to `attune train`", sweep_.file.string());
    config::bind_options(root_, describe<SweepOptions>(), &sweep_.options, problems_,
                         {"values", "trial", "halving"});
    if (root_.contains("halving"))
      config::bind_options(config::section(root_, "halving", problems_), describe<HalvingOptions>(),
                           &sweep_.halving, problems_);
    for (const auto& [key, node] : config::section(root_, "values", problems_))
      read_dimension(std::string(key.str()), node);
    check_names();
    problems_.throw_if_any();
    const auto all = settings();
    count_last_names(all);
    for (const auto& values : all) add(values);
    if (sweep_.trials.empty())
      fail(
          "{}: defines no trials: give [values], with the values of each key, or method = \"list\" "
          "and [[trial]]",
          sweep_.file.string());
    return std::move(sweep_);
  }

 private:
  /// Where a key belongs that is unknown where it stands.
  static std::string where_is(const std::string& key) {
    const auto has = [&](const OptionSet& schema) {
      return std::ranges::find(schema.options, key, &Option::name) != schema.options.end();
    };
    if (has(describe<SweepOptions>()))
      return fmt::format("'{}' belongs to the top of the sweep file, before [values]", key);
    if (has(describe<HalvingOptions>())) return fmt::format("'{}' belongs to [halving]", key);
    return key.find('.') == std::string::npos
               ? ""
               : fmt::format("write values of the run file below [values]: \"{}\" = [...]", key);
  }

  // ---- [values]

  inline static const std::vector<std::string> range_keys{"values", "low", "high", "log", "when"};

  /// key = [...], key = { values = [...], when = {...} }, key = { low, high, log, when }
  void read_dimension(const std::string& key, const toml::node& node) {
    Dimension dimension;
    dimension.key = key;
    if (const auto* array = node.as_array()) {
      read_values(*array, dimension);
    } else if (const auto* table = node.as_table();
               table && key.find('.') == std::string::npos && is_section(*table)) {
      const std::string inner(table->begin()->first.str());
      problems_.add(table->begin()->first.source(),
                    fmt::format("write keys with a dot in quotes: \"{}.{}\"", key, inner));
    } else if (table) {
      read_table(*table, dimension);
    } else {
      problems_.add(
          node.source(),
          fmt::format(
              "'{}' must be a list of values, or a table with 'values', or with 'low' and 'high'",
              key));
    }
    dimensions_.push_back(std::move(dimension));
  }

  /// Of strategy.rank = [...] TOML makes a table in a table.
  static bool is_section(const toml::table& table) {
    return !table.empty() && std::ranges::none_of(table, [](const auto& one) {
      return std::ranges::find(range_keys, one.first.str()) != range_keys.end();
    }) && std::ranges::all_of(table, [](const auto& one) {
      return one.second.is_array() || one.second.is_table();
    });
  }

  void read_values(const toml::array& array, Dimension& dimension) {
    for (const auto& element : array) dimension.values.push_back(toml_text(element));
    if (array.empty())
      problems_.add(array.source(), fmt::format("'{}' has no values", dimension.key));
  }

  void read_table(const toml::table& table, Dimension& dimension) {
    for (const auto& [key, node] : table)
      if (std::ranges::find(range_keys, key.str()) == range_keys.end())
        problems_.add_unknown(key, range_keys);
    if (const auto* when = table.get("when")) read_condition(*when, dimension);
    if (const auto* values = table.get("values"); values && values->is_array())
      return read_values(*values->as_array(), dimension);
    const auto* low = table.get("low");
    const auto* high = table.get("high");
    if (!low || !high || !low->is_number() || !high->is_number())
      return problems_.add(
          table.source(),
          fmt::format("'{}' needs 'values', a list, or 'low' and 'high', numbers", dimension.key));
    dimension.range = Range{*low->value<double>(), *high->value<double>(),
                            table["log"].value_or(false), low->is_integer() && high->is_integer()};
    const auto& range = *dimension.range;
    if (range.low >= range.high || (range.log && range.low <= 0))
      problems_.add(low->source(), fmt::format("'{}': 'low' must be below 'high'{}", dimension.key,
                                               range.log ? ", and above 0 for log = true" : ""));
    if (sweep_.options.method != "random")
      problems_.add(table.source(),
                    fmt::format("'{}' is a range, which needs method = \"random\"", dimension.key));
  }

  void read_condition(const toml::node& node, Dimension& dimension) {
    const auto* table = node.as_table();
    if (!table)
      return problems_.add(node.source(),
                           "'when' must be a table: when = { \"train.optimizer\" = \"sgd\" }");
    for (const auto& [key, value] : *table) {
      std::vector<std::string> allowed;
      if (const auto* array = value.as_array())
        for (const auto& element : *array) allowed.push_back(toml_text(element));
      else
        allowed.push_back(toml_text(value));
      dimension.when.emplace_back(std::string(key.str()), std::move(allowed));
    }
  }

  void check_names() {
    const auto& options = sweep_.options;
    if (const auto* name = root_.get_as<std::string>("name"))
      if (const auto objection = objection_to_name(name->get()); !objection.empty())
        problems_.add(name->source(), objection);
    if (const auto* output = root_.get_as<std::string>("output"))
      if (const auto objection = objection_to_folder(output->get()); !objection.empty())
        problems_.add(output->source(), objection);
    if (options.method == "random" && options.trials == 0)
      problems_.add(root_.source(), "method = \"random\" needs 'trials', the number of draws");
    if (const auto* trials = root_.get("trials"); trials && options.method != "random")
      problems_.add(trials->source(),
                    trials->is_array()
                        ? "write each trial as [[trial]]"
                        : "'trials' needs method = \"random\": set it, or remove 'trials'");
    if (options.method == "list" && !root_.contains("trial"))
      problems_.add(root_.source(), "method = \"list\" needs a [[trial]] for each trial");
    if (options.method != "list" && root_.contains("trial"))
      problems_.add(root_.get("trial")->source(), "[[trial]] needs method = \"list\"");
    for (auto& dimension : dimensions_)
      for (const auto& [key, values] : dimension.when)
        if (std::none_of(dimensions_.begin(), dimensions_.end(),
                         [&, wanted = key](const auto& other) {
                           return other.key == wanted && other.when.empty();
                         }))
          problems_.add(config::section(root_, "values", problems_).get(dimension.key)->source(),
                        fmt::format("'{}' depends on '{}', which is not a value of this sweep, or "
                                    "depends on another value itself",
                                    dimension.key, key));
    // Those that others depend on come first; apart from that the order is that of the names,
    // whatever that of the file.
    std::stable_sort(dimensions_.begin(), dimensions_.end(), [](const auto& a, const auto& b) {
      return a.when.empty() && !b.when.empty();
    });
  }

  // ---- Trials

  using Values = std::vector<Assignment>;

  static bool applies(const Dimension& dimension, const Values& values) {
    return std::all_of(dimension.when.begin(), dimension.when.end(), [&](const auto& condition) {
      return std::any_of(values.begin(), values.end(), [&](const Assignment& a) {
        return a.key == condition.first &&
               std::find(condition.second.begin(), condition.second.end(), a.value) !=
                   condition.second.end();
      });
    });
  }

  std::vector<Values> settings() {
    if (sweep_.options.method == "list") return listed();
    return sweep_.options.method == "random" ? drawn() : combined();
  }

  std::vector<Values> combined() {
    if (dimensions_.empty()) return {};
    std::vector<Values> all(1);
    for (const auto& dimension : dimensions_) {
      std::vector<Values> longer;
      for (const auto& values : all) {
        if (!applies(dimension, values)) {
          longer.push_back(values);
          continue;
        }
        for (const auto& value : dimension.values) {
          longer.push_back(values);
          longer.back().push_back({dimension.key, value});
        }
      }
      all = std::move(longer);
      if (all.size() > 1000000)
        fail(
            "{}: the grid has more than a million trials: give fewer values, or use method = "
            "\"random\"",
            sweep_.file.string());
    }
    return all;
  }

  std::vector<Values> drawn() {
    std::vector<Values> all;
    std::set<std::string> seen;
    std::mt19937_64 random(static_cast<std::uint64_t>(sweep_.options.seed));
    // std's distributions differ between libraries
    const auto share = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
    for (std::int64_t tries = 0; static_cast<std::int64_t>(all.size()) < sweep_.options.trials;
         ++tries) {
      if (tries > 100 * sweep_.options.trials)
        fail(
            "{}: there are fewer than {} different trials to draw: lower 'trials', or give more "
            "values",
            sweep_.file.string(), sweep_.options.trials);
      Values values;
      for (const auto& dimension : dimensions_) {
        const double at = share();  // also when it does not apply: the other draws stay the same
        if (applies(dimension, values))
          values.push_back(
              {dimension.key, dimension.range
                                  ? draw(*dimension.range, at)
                                  : dimension.values[static_cast<std::size_t>(
                                        at * static_cast<double>(dimension.values.size()))]});
      }
      if (dimensions_.empty()) break;
      if (seen.insert(summed(values)).second) all.push_back(std::move(values));
    }
    return all;
  }

  /// To three digits: what the name says is what is tried.
  static std::string draw(const Range& range, double at) {
    const double value = range.log ? range.low * std::pow(range.high / range.low, at)
                                   : range.low + at * (range.high - range.low);
    if (range.whole)
      return std::to_string(std::min(
          static_cast<std::int64_t>(range.high),
          static_cast<std::int64_t>(
              range.low +
              std::floor((range.log ? value - range.low : at * (range.high - range.low + 1))))));
    return to_toml(OptionValue(std::stod(fmt::format("{:.3g}", value))));
  }

  std::vector<Values> listed() {
    std::vector<Values> all;
    const auto* array = root_.get("trial")->as_array();
    if (!array || !array->is_homogeneous<toml::table>())
      fail("{}: write each trial as [[trial]] with its values", sweep_.file.string());
    for (const auto& element : *array) {
      Values values;
      for (const auto& [key, node] : *element.as_table())
        values.push_back({std::string(key.str()), toml_text(node)});
      all.push_back(std::move(values));
    }
    return all;
  }

  void add(const Values& values) {
    for (std::int64_t seed = 0; seed < sweep_.options.seeds; ++seed) {
      auto with_seed = values;
      if (sweep_.options.seeds > 1) with_seed.push_back({"seed", std::to_string(seed)});
      Trial trial{free_name(with_seed), with_seed, {}};
      for (const auto& assignment : with_seed) trial.overrides.push_back(assignment.text());
      trial.overrides.push_back("name=" + to_toml(OptionValue(trial.name)));
      trial.overrides.push_back("output=" +
                                to_toml(OptionValue(sweep_.options.directory().string())));
      names_.emplace(trial.name, summed(with_seed));
      sweep_.trials.push_back(std::move(trial));
    }
  }

  /// How many keys of the sweep, whichever trials have them, end in the same name.
  void count_last_names(const std::vector<Values>& all) {
    std::set<std::string> keys;
    if (sweep_.options.seeds > 1) keys.insert("seed");
    for (const auto& values : all)
      for (const auto& [key, value] : values) keys.insert(key);
    for (const auto& key : keys) ++last_names_[last_of(key)];
  }

  /// A name that no trial of other values has: the short one, else with whole keys, else a sum.
  /// Error when these very values are there already.
  std::string free_name(const Values& values) const {
    const auto sum = summed(values);
    for (const auto& name : {name_of(values), written(values, false), sum}) {
      const auto taken = names_.find(name);
      if (taken == names_.end() && is_good_name(name)) return name;
      if (taken != names_.end() && taken->second == sum)
        fail("{}: two trials have the same values ({})", sweep_.file.string(), name);
    }
    throw Fault(fmt::format("two trials with different values have the same hash ({})", sum));
  }

  static std::string summed(const Values& values) {
    std::string whole;
    for (const auto& [key, value] : values) whole += key + "=" + value + "\n";
    return "trial-" + sha256(whole).substr(0, 12);
  }

  static bool is_good_name(const std::string& name) {
    const auto fits = [](unsigned char c) {
      return std::isalnum(c) ||
             std::string_view("._-+=,").find(static_cast<char>(c)) != std::string_view::npos;
    };
    return !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), fits);
  }

  static std::string last_of(const std::string& key) { return key.substr(key.rfind('.') + 1); }

  /// "rank=8,learning_rate=0.001"; with short keys, those that end as another of the sweep does are
  /// whole all the same.
  std::string written(const Values& values, bool short_keys) const {
    std::string name;
    for (const auto& [key, value] : values) {
      const auto last = last_of(key);
      auto plain = value;
      std::erase(plain, '"');
      name += (name.empty() ? "" : ",") + (short_keys && last_names_.at(last) == 1 ? last : key) +
              "=" + plain;
    }
    return name;
  }

  /// Readable, or a short sum where that would be no good name of a directory.
  std::string name_of(const Values& values) const {
    const auto name = written(values, true);
    return is_good_name(name) ? name : summed(values);
  }

  const toml::table& root_;
  Sweep sweep_;
  std::vector<Dimension> dimensions_;
  std::map<std::string, int> last_names_;
  std::map<std::string, std::string> names_;  // of the trials, with the sum of their values
  config::Problems problems_;
};

}  // namespace

Sweep read_sweep(const config::Document& document) { return Reader(document).read(); }

}  // namespace attune::sweep
