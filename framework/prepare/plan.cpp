#include "prepare/plan.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/sampler.hpp"
#include "prepare/twins.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

/// Streams of the one seed: what is drawn in one place does not depend on what is drawn in another.
enum Stream : std::uint64_t {
  split_stream = 0,
  weight_stream = 1u << 8,
  balance_stream = 1u << 20
};

enum class Side : std::uint8_t { open, train, validation, test };
const std::vector<std::string> side_names{"", "train", "validation", "test"};

Side side_of(const std::string& split) {
  return static_cast<Side>(std::find(side_names.begin(), side_names.end(), split) -
                           side_names.begin());
}
bool held_out(Side side) { return side == Side::validation || side == Side::test; }

/// Words such as "nan" and "inf", which some parsers take for numbers, are none.
std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool all = error == std::errc() && end == text.data() + text.size();
  return all && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

/// As JSON writes it, as Python does (pandas in a CSV), or as spreadsheets do.
std::optional<bool> boolean(const std::string& text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

bool all_are(const std::set<std::string>& names, auto kind) {
  return std::all_of(names.begin(), names.end(),
                     [&](const auto& name) { return kind(name).has_value(); });
}

/// Sorted as numbers or booleans when all are; the shortest text of a number first, and of a
/// boolean JSON's.
std::vector<std::string> sorted_labels(const std::set<std::string>& names) {
  std::vector<std::string> labels(names.begin(), names.end());
  const auto sort_by = [&](auto order) {
    std::stable_sort(labels.begin(), labels.end(),
                     [&](const auto& a, const auto& b) { return order(a) < order(b); });
  };
  if (all_are(names, number))
    sort_by([](const auto& label) { return std::pair(*number(label), label.size()); });
  if (all_are(names, boolean))
    sort_by([](const auto& label) { return std::pair(*boolean(label), label < "a"); });
  return labels;
}

/// Texts of the same number ("1" and "1.0") or boolean ("true" and "True"): a column of integers or
/// booleans in one file may be one of floats or texts in another. Doubles tell whole numbers apart
/// up to 2^53 alone.
bool same_label(const std::string& a, const std::string& b) {
  constexpr double exact = 1LL << 53;
  if (const auto value = boolean(a)) return value == boolean(b);
  const auto value = number(a);
  return value && value == number(b) && (std::abs(*value) < exact || a == b);
}

/// One label for each number or boolean, where all labels are such.
std::vector<std::string> merged_labels(const std::set<std::string>& names) {
  auto labels = sorted_labels(names);
  if (!all_are(names, number) && !all_are(names, boolean)) return labels;
  labels.erase(std::unique(labels.begin(), labels.end(), same_label), labels.end());
  return labels;
}

/// Position i of n is taken when the running share passes a whole number there: exactly floor(n *
/// share) are, evenly spread.
bool takes(std::size_t i, double share) {
  return std::floor(static_cast<double>(i + 1) * share) >
         std::floor(static_cast<double>(i) * share);
}

/// One label: the names it asks for, over all ranks.
struct Stratum {
  std::string label;
  std::vector<std::string> names;
};

/// What is decided of each record, by its number.
struct Decisions {
  const Recipe& recipe;
  const Reading& reading;
  Records records;
  std::vector<Stratum> strata;  // sorted by label
  std::vector<std::uint32_t> sources;
  std::vector<std::uint32_t> labels;  // stratum of each record
  std::vector<Side> sides;
  std::vector<std::uint32_t> times;   // how often each is taken; 0: dropped
  std::vector<std::uint8_t> reasons;  // why: index of reason_texts, from 1
  std::vector<std::string> reason_texts;

  std::uint64_t size() const { return times.size(); }
  std::uint64_t seed() const { return static_cast<std::uint64_t>(recipe.split.seed); }
  bool alive(std::uint64_t i) const { return times[i] > 0; }
  void drop(std::uint64_t i, const std::string& reason) {
    auto found = std::find(reason_texts.begin(), reason_texts.end(), reason);
    if (found == reason_texts.end()) found = reason_texts.insert(found, reason);
    times[i] = 0;
    reasons[i] = static_cast<std::uint8_t>(found - reason_texts.begin() + 1);
  }
  /// A reason to stop, or to drop this record where its source skips bad rows.
  void refuse(std::uint64_t i, const std::string& reason, const std::string& text) {
    if (!recipe.sources[sources[i]].on_error.starts_with("skip"))
      throw BadRow(reason, place_of(records.read(i)) + ": " + text);
    drop(i, reason);
  }
};

Decisions begin_decisions(const Recipe& recipe, const Reading& reading,
                          const std::vector<std::string>& all_labels) {
  Decisions d{recipe, reading, Records(reading.folder, reading.counts), {}, {}, {}, {}, {}, {}, {}};
  std::map<std::string, std::vector<std::string>> strata;
  for (const auto& rank : reading.strata)
    for (const auto& [label, entry] : rank.at("labels").items()) {
      auto& names = strata[named_in(all_labels, label)] =
          entry.at("names").get<std::vector<std::string>>();
      for (auto& name : names) name = named_in(all_labels, name);
    }
  std::map<std::string, std::uint32_t> numbers;
  for (auto& [label, names] : strata) {
    numbers[label] = static_cast<std::uint32_t>(d.strata.size());
    d.strata.push_back({label, std::move(names)});
  }
  std::vector<std::vector<std::uint32_t>> renumbered;  // by rank: its number -> ours
  for (const auto& rank : reading.strata) {
    auto& to = renumbered.emplace_back(rank.at("labels").size());
    for (const auto& [label, entry] : rank.at("labels").items())
      to[entry.at("number").get<std::size_t>()] = numbers.at(named_in(all_labels, label));
  }
  const auto size = d.records.size();
  d.sources.reserve(size);
  d.labels.reserve(size);
  d.sides.reserve(size);
  d.records.for_each([&](std::uint64_t, const RecordEntry& entry, int rank) {
    d.sources.push_back(entry.source);
    d.labels.push_back(entry.stratum == no_stratum
                           ? no_stratum
                           : renumbered[static_cast<std::size_t>(rank)][entry.stratum]);
    d.sides.push_back(side_of(recipe.sources[entry.source].split));
  });
  d.times.assign(size, 1);
  d.reasons.assign(size, 0);
  return d;
}

// --- Twins

void for_each_twin_group(const Decisions& d, bool near, const UseGroup& use) {
  if (!near) return for_each_equal_group(d.records, use);
  const auto similarity = d.recipe.clean.similarity;
  for_each_near_group(d.records, d.reading.folder, d.reading.counts,
                      Banding::for_similarity(similarity), similarity, use);
}

/// Of each group the first stays; one that was given to validation or test comes before others when
/// leaks are looked for.
void drop_duplicates(Decisions& d, bool near) {
  const bool guarded = d.recipe.split.leakage != "none";
  const auto later = [&](std::uint64_t i) { return guarded && !held_out(d.sides[i]); };
  for_each_twin_group(d, near, [&](const std::vector<std::uint64_t>& group) {
    std::vector<std::uint64_t> left;
    std::copy_if(group.begin(), group.end(), std::back_inserter(left),
                 [&](auto i) { return d.alive(i); });
    std::stable_partition(left.begin(), left.end(), [&](auto i) { return !later(i); });
    for (std::size_t i = 1; i < left.size(); ++i)
      d.drop(left[i], near ? "nearly a duplicate" : "duplicate");
  });
}

/// No training record may have a twin that is held out.
void drop_leaks(Decisions& d, bool near) {
  for_each_twin_group(d, near, [&](const std::vector<std::uint64_t>& group) {
    if (std::none_of(group.begin(), group.end(),
                     [&](auto i) { return d.alive(i) && held_out(d.sides[i]); }))
      return;
    for (const auto i : group)
      if (d.alive(i) && d.sides[i] == Side::train)
        d.drop(i, near ? "nearly equal to a record of validation or test"
                       : "equal to a record of validation or test");
  });
}

// --- Splits

/// Gives every record without a split one. The order is shuffled by the seed and, when stratified,
/// then sorted by label, so that every label gives its share to each split, to within one record.
void assign_splits(Decisions& d) {
  const auto& options = d.recipe.split;
  std::vector<std::uint64_t> open;
  for (std::uint64_t i = 0; i < d.size(); ++i)
    if (d.alive(i) && d.sides[i] == Side::open) open.push_back(i);
  if (open.empty()) return;
  auto order = permutation(std::ssize(open), d.seed(), split_stream);
  for (auto& position : order)
    position = static_cast<std::int64_t>(open[static_cast<std::size_t>(position)]);
  if (options.stratify) {
    for (const auto i : open)
      if (d.labels[i] == no_stratum)
        throw BadRow("a field is missing",
                     place_of(d.records.read(i)) +
                         ": there is no field 'label' for [split] to stratify by; map it with "
                         "fields, or set stratify = false");
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return d.labels[static_cast<std::size_t>(a)] < d.labels[static_cast<std::size_t>(b)];
    });
  }
  const double held_out_share = options.validation + options.test;
  std::size_t taken = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    auto& side = d.sides[static_cast<std::size_t>(order[i])];
    if (!takes(i, held_out_share)) {
      side = Side::train;
    } else {
      side = takes(taken++, options.validation / held_out_share) ? Side::validation : Side::test;
    }
  }
}

/// In sources that name their split: a label that training never sees cannot be right.
void check_unseen_labels(Decisions& d) {
  std::set<std::string> seen;
  for (std::uint64_t i = 0; i < d.size(); ++i)
    if (d.alive(i) && d.sides[i] == Side::train && d.labels[i] != no_stratum)
      seen.insert(d.strata[d.labels[i]].names.begin(), d.strata[d.labels[i]].names.end());
  if (seen.empty()) return;
  for (std::uint64_t i = 0; i < d.size(); ++i) {
    if (!d.alive(i) || !held_out(d.sides[i]) || d.recipe.sources[d.sources[i]].split.empty() ||
        d.labels[i] == no_stratum)
      continue;
    for (const auto& name : d.strata[d.labels[i]].names)
      if (!seen.contains(name)) {
        d.refuse(i, "a label never seen in training",
                 fmt::format("no training record has the label '{}'; correct it, or add records "
                             "with it to training",
                             name));
        break;
      }
  }
}

// --- Weights and balance

/// Takes `target` of these training records, each as often as every other but for one.
void draw(Decisions& d, const std::vector<std::uint64_t>& members, std::uint64_t target,
          std::uint64_t stream, const std::string& reason) {
  const auto count = members.size();
  if (target == count || count == 0) return;
  const auto order = permutation(static_cast<std::int64_t>(count), d.seed(), stream);
  for (const auto i : members) d.times[i] = 0;
  for (std::size_t position = 0; position < count; ++position)
    d.times[members[static_cast<std::size_t>(order[position])]] +=
        static_cast<std::uint32_t>(target / count + (position < target % count));
  for (const auto i : members)
    if (!d.alive(i)) d.drop(i, reason);
}

/// Every training record that `belongs`, as often as it is taken.
template <class Belongs>
std::vector<std::uint64_t> training_members(const Decisions& d, Belongs belongs) {
  std::vector<std::uint64_t> members;
  for (std::uint64_t i = 0; i < d.size(); ++i)
    if (d.sides[i] == Side::train && belongs(i)) members.insert(members.end(), d.times[i], i);
  return members;
}

void weigh_sources(Decisions& d) {
  for (std::uint32_t source = 0; source < d.recipe.sources.size(); ++source) {
    const auto weight = d.recipe.sources[source].weight;
    if (weight == 1) continue;
    const auto members = training_members(d, [&](auto i) { return d.sources[i] == source; });
    draw(d, members, static_cast<std::uint64_t>(static_cast<double>(members.size()) * weight),
         weight_stream + source,
         fmt::format("dropped by the weight {} of {}", weight, d.recipe.sources[source].path));
  }
}

std::vector<std::uint64_t> training_counts(const Decisions& d) {
  std::vector<std::uint64_t> counts(d.strata.size());
  for (std::uint64_t i = 0; i < d.size(); ++i) {
    if (d.sides[i] != Side::train || !d.alive(i)) continue;
    if (d.labels[i] == no_stratum)
      throw BadRow("a field is missing", place_of(d.records.read(i)) +
                                             ": there is no field 'label' for [balance] to count; "
                                             "map it with fields, or remove [balance]");
    counts[d.labels[i]] += d.times[i];
  }
  return counts;
}

void balance(Decisions& d) {
  const auto& method = d.recipe.balance.method;
  if (method != "down" && method != "up") return;
  const auto counts = training_counts(d);
  std::vector<std::uint64_t> present;
  std::copy_if(counts.begin(), counts.end(), std::back_inserter(present),
               [](auto count) { return count > 0; });
  if (present.empty()) return;
  const auto target = method == "down" ? *std::min_element(present.begin(), present.end())
                                       : *std::max_element(present.begin(), present.end());
  for (std::uint32_t label = 0; label < d.strata.size(); ++label)
    draw(d, training_members(d, [&](auto i) { return d.labels[i] == label; }), target,
         balance_stream + label, "dropped to balance the labels");
}

/// n / (labels * n of the label): all labels weigh the same together (King and Zeng 2001; what
/// scikit-learn calls "balanced").
std::vector<double> class_weights(const Decisions& d, const std::vector<std::string>& labels) {
  if (d.recipe.balance.method != "weights") return {};
  const auto counts = training_counts(d);
  std::map<std::string, double> by_name;
  double all = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (d.strata[i].names != std::vector<std::string>{d.strata[i].label})
      fail(
          "{}: [balance] method = \"weights\" needs one label per record, but '{}' has several or "
          "none",
          d.recipe.path.string(), d.strata[i].label);
    by_name[d.strata[i].label] = static_cast<double>(counts[i]);
    all += static_cast<double>(counts[i]);
  }
  std::vector<double> weights;
  for (const auto& label : labels)
    weights.push_back(
        by_name[label] > 0 ? all / (static_cast<double>(labels.size()) * by_name[label]) : 0);
  return weights;
}

// --- The draws

/// In the order of the data, for its count of dropped records to name the first of each reason.
void tell(const Decisions& d, Ledger& ledger) {
  for (std::uint64_t i = 0; i < d.size(); ++i) {
    if (d.reasons[i] == 0) continue;
    const auto& reason = d.reason_texts[d.reasons[i] - 1];
    if (ledger.tells(reason))
      ledger.drop(reason, d.records.read(i));
    else
      ledger.drop_untold(reason);
  }
}

/// Cuts a sequence of draws into stretches of about equal work: `rounds` for each rank.
class Cutter {
 public:
  Cutter(double all, int ranks) : ranks_(ranks) {
    constexpr double round_bytes = 8 << 20;  // for each rank
    pieces_ = ranks * std::max<std::uint64_t>(
                          1, static_cast<std::uint64_t>(std::ceil(all / (round_bytes * ranks))));
    step_ = all / static_cast<double>(pieces_);
  }
  static double work(std::uint32_t bytes) { return bytes + 256.0; }
  void add(std::uint32_t bytes) {
    while (done_ >= step_ * static_cast<double>(cuts_.size()) && cuts_.size() < pieces_)
      cuts_.push_back(count_);
    ++count_;
    done_ += work(bytes);
  }
  std::vector<std::uint64_t> cuts() {
    cuts_.resize(pieces_ + 1, count_);
    return std::move(cuts_);
  }

 private:
  int ranks_;
  std::uint64_t pieces_;
  std::uint64_t count_ = 0;
  double step_;
  double done_ = 0;
  std::vector<std::uint64_t> cuts_;
};

/// Every record of the split as often as it is taken: all of them once, then those taken twice once
/// more ... Changed copies follow theirs.
template <class Use>
void for_each_draw(const Decisions& d, Side side, Use use) {
  const auto copies = side == Side::train ? static_cast<std::uint32_t>(d.recipe.augment.copies) : 0;
  struct Repeated {
    Draw draw;
    std::uint32_t times;
  };
  std::vector<Repeated> repeated;
  const auto use_all = [&](Draw draw, std::uint32_t turn) {
    draw.variant = 0;
    use(draw);
    for (std::uint32_t copy = 1; copy <= copies; ++copy) {
      draw.variant = turn * copies + copy;
      use(draw);
    }
  };
  d.records.for_each([&](std::uint64_t i, const RecordEntry& entry, int rank) {
    if (d.sides[i] != side || !d.alive(i)) return;
    const Draw draw{entry.offset, entry.bytes, static_cast<std::uint32_t>(rank), entry.source, 0};
    use_all(draw, 0);
    if (d.times[i] > 1) repeated.push_back({draw, d.times[i]});
  });
  for (std::uint32_t turn = 1; !repeated.empty(); ++turn) {
    std::erase_if(repeated, [&](const Repeated& one) { return one.times <= turn; });
    for (const auto& one : repeated) use_all(one.draw, turn);
  }
}

SplitPlan write_draws(const Decisions& d, Side side) {
  double work = 0;
  for_each_draw(d, side, [&](const Draw& draw) { work += Cutter::work(draw.bytes); });
  Cutter cutter(work, d.reading.ranks());
  OutFile file(draws_file(d.reading.folder, side_names[static_cast<std::size_t>(side)]));
  for_each_draw(d, side, [&](const Draw& draw) { file.write(draw), cutter.add(draw.bytes); });
  file.close();
  return {cutter.cuts()};
}

/// Splits that the recipe asks for: each must end up with samples.
std::set<std::string> wanted_splits(const Recipe& recipe) {
  std::set<std::string> names;
  for (const auto& source : recipe.sources) {
    if (!source.split.empty()) {
      names.insert(source.split);
      continue;
    }
    if (recipe.split.validation + recipe.split.test < 1) names.insert("train");
    if (recipe.split.validation > 0) names.insert("validation");
    if (recipe.split.test > 0) names.insert("test");
  }
  return names;
}

std::vector<std::string> labels_of(const Recipe& recipe, const Reading& reading) {
  if (!recipe.clean.labels.empty()) return recipe.clean.labels;
  std::set<std::string> names;
  bool one_each = true;  // every record asks for its label
  for (const auto& rank : reading.strata) {
    for (const auto& [label, entry] : rank.at("labels").items()) {
      const auto of_label = entry.at("names").get<std::vector<std::string>>();
      one_each = one_each && of_label == std::vector{label};
      names.insert(of_label.begin(), of_label.end());
    }
    for (const auto& name : rank.at("others")) names.insert(name.get<std::string>());
    one_each = one_each && rank.at("others").empty();
  }
  return one_each ? merged_labels(names) : sorted_labels(names);
}

}  // namespace

std::string named_in(const std::vector<std::string>& labels, const std::string& name) {
  if (std::find(labels.begin(), labels.end(), name) != labels.end()) return name;
  const auto found = std::find_if(labels.begin(), labels.end(),
                                  [&](const auto& label) { return same_label(name, label); });
  return found == labels.end() ? name : *found;
}

fs::path draws_file(const fs::path& folder, const std::string& split) {
  return folder / ("draws-" + split);
}

json to_json(const Plan& plan) {
  json splits = json::object();
  for (const auto& [name, split] : plan.splits) splits[name] = split.cuts;
  return {{"splits", std::move(splits)},
          {"labels", plan.labels},
          {"class_weights", plan.class_weights}};
}

Plan plan_from(const json& json) {
  Plan plan;
  for (const auto& [name, cuts] : json.at("splits").items())
    plan.splits[name].cuts = cuts.get<std::vector<std::uint64_t>>();
  plan.labels = json.at("labels").get<std::vector<std::string>>();
  plan.class_weights = json.at("class_weights").get<std::vector<double>>();
  return plan;
}

std::uint32_t Strata::number(const Record& record, const std::vector<std::string>& names) {
  const auto label = record.fields.find("label");
  if (label == record.fields.end()) {
    other_names_.insert(names.begin(), names.end());
    return no_stratum;
  }
  const auto [entry, added] =
      numbers_.emplace(label->second, static_cast<std::uint32_t>(names_.size()));
  if (added)
    names_.push_back(names);
  else if (names_[entry->second] != names)
    other_names_.insert(names.begin(), names.end());
  return entry->second;
}

json Strata::to_json() const {
  json labels = json::object();
  for (const auto& [label, number] : numbers_)
    labels[label] = {{"number", number}, {"names", names_[number]}};
  return {{"labels", std::move(labels)}, {"others", other_names_}};
}

Plan make_plan(const Recipe& recipe, const Reading& reading, Ledger& ledger) {
  const auto& [clean, split] = std::tie(recipe.clean, recipe.split);
  const auto labels = labels_of(recipe, reading);
  auto d = begin_decisions(recipe, reading, labels);
  if (clean.deduplicate != "none") drop_duplicates(d, false);
  if (clean.deduplicate == "near") drop_duplicates(d, true);
  assign_splits(d);
  if (split.leakage != "none" && clean.deduplicate == "none") drop_leaks(d, false);
  if (split.leakage == "near" && clean.deduplicate != "near") drop_leaks(d, true);
  check_unseen_labels(d);
  weigh_sources(d);
  balance(d);
  tell(d, ledger);

  Plan plan;
  plan.labels = labels;
  plan.class_weights = class_weights(d, plan.labels);
  for (const auto& name : wanted_splits(recipe)) plan.splits[name] = write_draws(d, side_of(name));
  return plan;
}

}  // namespace attune
