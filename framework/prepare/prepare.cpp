#include "prepare/prepare.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <attune/error.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_set>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/names.hpp"
#include "data/sampler.hpp"
#include "parallel/mpi.hpp"
#include "weights/json_file.hpp"
#include "weights/model_files.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::size_t kept_examples = 3;

/// JSON of texts that may not be UTF-8.
std::string dumped(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

void note(std::map<std::string, Rejection>& rejected, const std::string& reason, const Record& record) {
  auto& rejection = rejected[reason];
  ++rejection.count;
  if (rejection.examples.size() < kept_examples) rejection.examples.push_back(fmt::format("{}, row {}", record.source, record.row));
}

json to_json(const std::map<std::string, Rejection>& rejected) {
  json result = json::object();
  for (const auto& [reason, rejection] : rejected) result[reason] = {{"count", rejection.count}, {"examples", rejection.examples}};
  return result;
}

void merge(std::map<std::string, Rejection>& rejected, const json& more) {
  for (const auto& [reason, entry] : more.items()) {
    auto& rejection = rejected[reason];
    rejection.count += entry.at("count").get<std::int64_t>();
    for (const auto& example : entry.at("examples"))
      if (rejection.examples.size() < kept_examples) rejection.examples.push_back(example);
  }
}

// --- Records, and which split each goes to. Every rank works this out for itself, and all come to the same.

struct Plan {
  std::vector<Record> records;
  std::map<std::string, std::vector<std::size_t>> splits;  // indices of records, ascending
  std::vector<std::string> labels;
};

struct Entry {
  Record record;
  std::string split;  // empty: [split] decides
};

std::vector<Entry> read_sources(const Recipe& recipe) {
  std::vector<Entry> entries;
  for (const auto& source : recipe.sources) {
    auto records = read_source(source, recipe.resolve(source.path), source.path);
    if (records.empty()) fail("{}: holds no records", recipe.resolve(source.path).string());
    for (auto& record : records) entries.push_back({std::move(record), source.split});
  }
  return entries;
}

/// Equal for records that hold the same, wherever they stand.
std::string fingerprint(const Record& record) {
  Sha256 sum;
  const auto add = [&sum](const std::string& text) { sum.add(std::to_string(text.size())).add(":").add(text); };
  for (const auto& [name, value] : record.fields) add(name), add(value);
  for (const auto& message : record.messages) add(message.role), add(message.content);
  return sum.hex();
}

void drop_duplicates(std::vector<Entry>& entries, std::map<std::string, Rejection>& rejected) {
  std::unordered_set<std::string> seen;
  std::erase_if(entries, [&](const Entry& entry) {
    if (seen.insert(fingerprint(entry.record)).second) return false;
    note(rejected, "duplicate", entry.record);
    return true;
  });
}

std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

/// Sorted as numbers when all are.
std::vector<std::string> labels_of(const std::vector<Entry>& entries) {
  std::set<std::string> names;
  for (const auto& entry : entries)
    if (const auto label = entry.record.fields.find("label"); label != entry.record.fields.end()) names.insert(label->second);
  std::vector<std::string> labels(names.begin(), names.end());
  if (std::all_of(labels.begin(), labels.end(), [](const auto& label) { return number(label).has_value(); }))
    std::stable_sort(labels.begin(), labels.end(), [](const auto& a, const auto& b) { return *number(a) < *number(b); });
  return labels;
}

/// Position i of n is taken when the running share passes a whole number there: exactly floor(n * share) are, evenly spread.
bool takes(std::size_t i, double share) { return std::floor(static_cast<double>(i + 1) * share) > std::floor(static_cast<double>(i) * share); }

/// Gives every entry without a split one. The order is shuffled by the seed and, when stratified, then sorted by label, so that every
/// label gives its share to each split, to within one record.
void assign_splits(const SplitOptions& options, std::vector<Entry>& entries) {
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (entries[i].split.empty()) open.push_back(i);
  std::vector<std::size_t> order;
  for (const auto position : permutation(static_cast<std::int64_t>(open.size()), static_cast<std::uint64_t>(options.seed), 0))
    order.push_back(open[static_cast<std::size_t>(position)]);
  if (options.stratify)
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return entries[a].record.field("label") < entries[b].record.field("label"); });
  const double held_out = options.validation + options.test;
  std::size_t taken = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    auto& split = entries[order[i]].split;
    if (!takes(i, held_out)) {
      split = "train";
    } else {
      split = takes(taken++, options.validation / held_out) ? "validation" : "test";
    }
  }
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

Plan make_plan(const Recipe& recipe, PrepareReport& report) {
  auto entries = read_sources(recipe);
  report.records = static_cast<std::int64_t>(entries.size());
  if (recipe.clean.deduplicate == "exact") drop_duplicates(entries, report.rejected);
  assign_splits(recipe.split, entries);
  Plan plan;
  plan.labels = labels_of(entries);
  for (const auto& name : wanted_splits(recipe)) plan.splits[name];
  for (auto& entry : entries) {
    plan.splits[entry.split].push_back(plan.records.size());
    plan.records.push_back(std::move(entry.record));
  }
  return plan;
}

// --- Encoding

struct Encoder {
  std::string digest;  // of the tokenizer
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat;
  std::shared_ptr<Dataset> dataset;

  static Encoder open(const Recipe& recipe, const Registry& registry) {
    const auto [tokenizer, chat] = tokenizer_files(recipe.resolve(recipe.tokenizer));
    const auto& entry = registry.find(Kind::dataset, recipe.kind);
    return {tokenizer_sha256(tokenizer), Tokenizer(tokenizer), chat_template(recipe, chat),
            std::static_pointer_cast<Dataset>(entry.build(recipe.dataset_options.get(), nullptr))};
  }

  /// A tokenizer.json and the chat template beside it, from a tokenizer.json itself or a model's files.
  static std::pair<json, std::string> tokenizer_files(const fs::path& path) {
    if (path.extension() == ".json") return {weights::read_json(path), ""};
    auto files = ModelFiles::open(path);
    if (files.tokenizer.is_null()) fail("{}: there is no tokenizer in it; set tokenizer to a place that has one", path.string());
    return {std::move(files.tokenizer), std::move(files.chat_template)};
  }

  /// Unless the recipe names one, a template we do not know is none: not every kind of data needs one.
  static std::optional<ChatTemplate> chat_template(const Recipe& recipe, const std::string& jinja) {
    if (!recipe.chat_template.empty()) return ChatTemplate::by_name(recipe.chat_template);
    if (jinja.empty()) return std::nullopt;
    try {
      return ChatTemplate::recognise(jinja);
    } catch (const Error&) {
      return std::nullopt;
    }
  }
};

/// This rank's part of a split.
struct Share {
  std::vector<Sample> samples;
  std::map<std::string, Rejection> rejected;
};

Share encode_share(const Encoder& encoder, const Plan& plan, const std::vector<std::size_t>& indices, const Comm& comm) {
  const EncodeContext context{encoder.tokenizer, encoder.chat ? &*encoder.chat : nullptr, plan.labels};
  const auto rank = static_cast<std::size_t>(comm.rank()), ranks = static_cast<std::size_t>(comm.size());
  Share share;
  for (auto i = indices.size() * rank / ranks; i < indices.size() * (rank + 1) / ranks; ++i) {
    const Record& record = plan.records[indices[i]];
    try {
      share.samples.push_back(encoder.dataset->encode(record, context));
    } catch (const Rejected& reason) {
      note(share.rejected, reason.what(), record);
    }
  }
  return share;
}

// --- Layout of a split over the ranks

/// Shape and dtype of a column, and where this rank's part of it begins.
struct ColumnLayout {
  at::ScalarType dtype;
  bool ragged = false;
  std::vector<std::int64_t> item;  // shape of one row of the dataset
  std::int64_t elements = 0;       // rows of the dataset, over all ranks
  std::int64_t first = 0;          // this rank's first
};

struct SplitLayout {
  std::int64_t samples = 0, first = 0;  // over all ranks; this rank's first
  std::map<std::string, ColumnLayout> columns;
};

/// What the other ranks have to know of a share.
json summary(const Share& share) {
  json columns = json::object();
  for (const auto& sample : share.samples)
    for (const auto& [name, value] : sample) {
      const bool ragged = value.dim() == 1;
      json shape = ragged ? json(std::vector<std::int64_t>{}) : json(value.sizes().vec());
      const json form{{"dtype", static_cast<int>(value.scalar_type())}, {"ragged", ragged}, {"item", std::move(shape)}};
      auto& column = columns[name];
      if (column.is_null()) column = {{"form", form}, {"samples", 0}, {"elements", 0}};
      ATTUNE_ASSERT(column["form"] == form, "column {} changes from {} to {}", name, column["form"].dump(), form.dump());
      column["samples"] = column["samples"].get<std::int64_t>() + 1;
      column["elements"] = column["elements"].get<std::int64_t>() + (ragged ? value.size(0) : 1);
    }
  return {{"samples", share.samples.size()}, {"columns", std::move(columns)}, {"rejected", to_json(share.rejected)}};
}

SplitLayout layout_of(const std::vector<json>& summaries, int this_rank) {
  SplitLayout layout;
  json forms = json::object();
  for (std::size_t rank = 0; rank < summaries.size(); ++rank) {
    const auto samples = summaries[rank].at("samples").get<std::int64_t>();
    if (static_cast<int>(rank) == this_rank) layout.first = layout.samples;
    for (const auto& [name, column] : summaries[rank].at("columns").items()) {
      const json& form = column.at("form");
      if (!forms.contains(name)) {
        forms[name] = form;
        layout.columns[name] = {static_cast<at::ScalarType>(form.at("dtype").get<int>()), form.at("ragged"), form.at("item")};
      }
      ATTUNE_ASSERT(forms[name] == form && column.at("samples") == samples, "column {} is not the same in every sample", name);
    }
    layout.samples += samples;
    for (auto& [name, column] : layout.columns) {
      if (static_cast<int>(rank) == this_rank) column.first = column.elements;
      const auto& columns = summaries[rank].at("columns");
      ATTUNE_ASSERT(columns.contains(name) || samples == 0, "column {} is not in every sample", name);
      if (columns.contains(name)) column.elements += columns.at(name).at("elements").get<std::int64_t>();
    }
  }
  return layout;
}

// --- Writing

/// The rows of a column's dataset that come from these samples.
at::Tensor values_of(const std::vector<Sample>& samples, const std::string& name, const ColumnLayout& layout) {
  if (samples.empty()) {
    auto shape = layout.item;
    shape.insert(shape.begin(), 0);
    return at::empty(shape, layout.dtype);
  }
  std::vector<at::Tensor> parts;
  for (const auto& sample : samples) parts.push_back(sample.at(name));
  return layout.ragged ? at::cat(parts) : at::stack(parts);
}

/// Where each of these samples begins; the last rank adds where all end.
at::Tensor offsets_of(const std::vector<Sample>& samples, const std::string& name, const ColumnLayout& layout, bool last_rank) {
  at::Tensor offsets = at::empty({static_cast<std::int64_t>(samples.size()) + last_rank}, at::kLong);
  auto* to = offsets.data_ptr<std::int64_t>();
  auto at = layout.first;
  for (const auto& sample : samples) *to++ = at, at += sample.at(name).size(0);
  if (last_rank) *to = at;
  return offsets;
}

/// All ranks write their rows, in pieces that MPI-IO can take.
void write_rows(const hdf5::Dataset& dataset, std::int64_t first, const at::Tensor& rows, const Comm& comm) {
  constexpr std::int64_t piece_bytes = 64 << 20;
  const auto step = std::max<std::int64_t>(1, piece_bytes / std::max<std::int64_t>(1, dataset.row_bytes()));
  const auto pieces = comm.max((rows.size(0) + step - 1) / step);
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const auto begin = std::min(piece * step, rows.size(0));
    dataset.write(first + begin, rows.narrow(0, begin, std::min(step, rows.size(0) - begin)));
  }
}

void write_split(const hdf5::Group& group, const Share& share, const SplitLayout& layout, const Comm& comm) {
  const bool last_rank = comm.rank() + 1 == comm.size();
  for (const auto& [name, column] : layout.columns) {
    auto shape = column.item;
    shape.insert(shape.begin(), column.elements);
    write_rows(group.create_dataset(name, column.dtype, shape), column.first, values_of(share.samples, name, column), comm);
    if (!column.ragged) continue;
    const auto offsets = group.create_dataset(name + offsets_suffix, at::kLong, {layout.samples + 1});
    write_rows(offsets, layout.first, offsets_of(share.samples, name, column, last_rank), comm);
  }
}

std::string reasons(const std::map<std::string, Rejection>& rejected) {
  std::vector<std::string> parts;
  for (const auto& [reason, rejection] : rejected) parts.push_back(fmt::format("{}: {}", reason, rejection.count));
  return parts.empty() ? "no record was assigned to it" : "all its records were rejected (" + joined(parts) + ")";
}

void add_split(const hdf5::Group& root, const std::string& name, const Recipe& recipe, const Encoder& encoder, const Plan& plan,
               const Comm& comm, PrepareReport& report) {
  Share share;
  std::string own;
  comm.agree([&] {
    share = encode_share(encoder, plan, plan.splits.at(name), comm);
    own = dumped(summary(share));
  });
  std::vector<json> summaries;
  for (const auto& text : comm.gather(own)) summaries.push_back(json::parse(text));
  const SplitLayout layout = layout_of(summaries, comm.rank());
  std::map<std::string, Rejection> rejected;
  for (const auto& one : summaries) merge(rejected, one.at("rejected"));
  if (layout.samples == 0)
    fail("{}: the split '{}' is empty: {}; change [split], the sources or the plugin's options", recipe.path.string(), name, reasons(rejected));
  merge(report.rejected, to_json(rejected));
  report.samples[name] = layout.samples;
  write_split(root.create_group(name), share, layout, comm);
}

std::string now() {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// Everything but the columns, by one process.
void describe_file(const fs::path& path, const Recipe& recipe, const Encoder& encoder, const Plan& plan, const PrepareReport& report) {
  const hdf5::Group root = hdf5::change_file(path);
  const auto attributes = root.attributes();
  attributes.set("format", std::string(data_format));
  attributes.set("version", data_version);
  attributes.set("name", recipe.name);
  attributes.set("kind", recipe.kind);
  attributes.set("licence", recipe.licence);
  attributes.set("recipe", recipe.text);
  attributes.set("tokenizer_sha256", encoder.digest);
  attributes.set("rejected", dumped(to_json(report.rejected)));
  attributes.set("created", now());
  if (!plan.labels.empty()) attributes.set("labels", plan.labels);
  std::vector<std::string> names, sums;
  for (const auto& source : recipe.sources) {
    names.push_back(source.path);
    sums.push_back(sha256_of_file(recipe.resolve(source.path)));
  }
  attributes.set("sources", names);
  attributes.set("sources_sha256", sums);
  for (const auto& [name, samples] : report.samples) {
    const auto split = root.group(name);
    split.attributes().set("sha256", content_sha256(split));
  }
  hdf5::flush(root);
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) fail("{}: the folder cannot be made ({}); set output to a place you may write to", folder.string(), error.message());
}

}  // namespace

PrepareReport prepare(const Recipe& recipe, const Registry& registry, const Comm& comm) {
  PrepareReport report;
  report.output = recipe.resolve(recipe.output);
  Plan plan;
  std::optional<Encoder> encoder;
  comm.agree([&] {
    encoder.emplace(Encoder::open(recipe, registry));
    plan = make_plan(recipe, report);
  });
  const fs::path partial = report.output.string() + ".partial";
  on_root(comm, [&] { make_folder(partial.parent_path()); });
  try {
    {
      const hdf5::Group root = hdf5::create_file(partial, comm);
      for (const auto& [name, indices] : plan.splits) add_split(root, name, recipe, *encoder, plan, comm, report);
      hdf5::flush(root);
    }
    on_root(comm, [&] {
      describe_file(partial, recipe, *encoder, plan, report);
      sync_to_disk(partial);
      fs::rename(partial, report.output);
    });
  } catch (...) {
    std::error_code ignored;
    if (comm.root()) fs::remove(partial, ignored);
    throw;
  }
  return report;
}

}  // namespace attune
