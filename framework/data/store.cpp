#include "data/store.hpp"

#include <ATen/ops/empty.h>
#include <attune/error.hpp>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "core/hash.hpp"
#include "core/names.hpp"
#include "core/plugin_call.hpp"
#include "data/prefetch.hpp"

namespace attune {
namespace {

std::vector<std::int64_t> to_vector(const at::Tensor& values) {
  const auto* first = values.data_ptr<std::int64_t>();
  return {first, first + values.numel()};
}

/// Neighbouring rows: rows[order[from]] .. rows[order[to - 1]] are first, first + 1, ...
struct Run {
  std::int64_t first;
  std::int64_t count;
};

/// Distinct rows in runs, ascending.
std::vector<Run> runs_of(std::span<const std::int64_t> rows) {
  std::vector<std::int64_t> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::vector<Run> runs;
  for (const auto row : sorted) {
    if (!runs.empty() && runs.back().first + runs.back().count == row) {
      ++runs.back().count;
    } else {
      runs.push_back({row, 1});
    }
  }
  return runs;
}

}  // namespace

struct Split::Column {
  hdf5::Dataset values;
  std::optional<hdf5::Dataset> offsets_dataset;  // ragged columns have one
  mutable std::vector<std::int64_t> offsets_read;
  mutable std::once_flag once;

  explicit Column(hdf5::Dataset column) : values(std::move(column)) {}
  Column(hdf5::Dataset column, hdf5::Dataset offsets)
      : values(std::move(column)), offsets_dataset(std::move(offsets)) {
    check_ends();
  }

  bool ragged() const { return offsets_dataset.has_value(); }
  std::int64_t samples() const { return ragged() ? offsets_dataset->rows() - 1 : values.rows(); }
  std::int64_t begin(std::int64_t row) const {
    return ragged() ? offsets()[static_cast<std::size_t>(row)] : row;
  }

  const std::vector<std::int64_t>& offsets() const {
    std::call_once(once, [this] {
      auto read = to_vector(offsets_dataset->read());
      if (!std::is_sorted(read.begin(), read.end()))
        fail("{}: offsets must ascend; the file is damaged", offsets_dataset->place().text());
      offsets_read = std::move(read);
    });
    return offsets_read;
  }

 private:
  void check_ends() const {
    const auto where = offsets_dataset->place().text();
    if (offsets_dataset->dtype() != at::kLong || offsets_dataset->shape().size() != 1 ||
        offsets_dataset->rows() < 1)
      fail("{}: offsets must be int64 [samples + 1]", where);
    if (values.shape().size() != 1)
      fail("{}: a ragged column must have one dimension and has {}", values.place().text(),
           values.shape().size());
    const auto first = to_vector(offsets_dataset->read(0, 1)).front();
    const auto last = to_vector(offsets_dataset->read(offsets_dataset->rows() - 1, 1)).front();
    if (first != 0)
      fail("{}: offsets must begin at 0 and begin at {}; the file is damaged", where, first);
    if (last != values.rows())
      fail("{}: offsets end at {} and the column has {} elements; the file is damaged", where, last,
           values.rows());
  }
};

Split::Split(hdf5::Group group) : group_(std::move(group)) {
  const std::string suffix = offsets_suffix;
  for (const auto& name : group_.members()) {
    if (name.ends_with(suffix)) {
      const auto column = name.substr(0, name.size() - suffix.size());
      if (!group_.has(column))
        fail("{}: there are offsets for '{}' but no such column", group_.place().text(), column);
      continue;
    }
    hdf5::Dataset values = group_.dataset(name);
    if (values.shape().empty())
      fail("{}: a column has at least one dimension", values.place().text());
    if (group_.has(name + suffix)) {
      columns_.try_emplace(name, std::move(values), group_.dataset(name + suffix));
    } else {
      columns_.try_emplace(name, std::move(values));
    }
  }
  if (columns_.empty()) fail("{}: the split has no columns", group_.place().text());
  size_ = columns_.begin()->second.samples();
  for (const auto& [name, column] : columns_)
    if (column.samples() != size_)
      fail("{}: has {} samples where '{}' has {}; the file is damaged",
           column.values.place().text(), column.samples(), columns_.begin()->first, size_);
  if (size_ == 0) fail("{}: the split is empty; prepare the data again", group_.place().text());
}

Split::Split(Split&&) noexcept = default;
Split::~Split() = default;

std::int64_t Split::size() const { return size_; }

std::vector<std::string> Split::columns() const {
  std::vector<std::string> names;
  for (const auto& [name, column] : columns_) names.push_back(name);
  return names;
}

const Split::Column& Split::column(const std::string& name) const {
  const auto found = columns_.find(name);
  if (found == columns_.end())
    fail("{}: there is no column '{}'; there are: {}", group_.place().text(), name,
         joined(columns()));
  return found->second;
}

bool Split::ragged(const std::string& name) const {
  const auto found = columns_.find(name);
  return found != columns_.end() && found->second.ragged();
}

bool Split::holds_tokens(const std::string& name) const {
  return ragged(name) && values(name).dtype() == at::kInt;
}

const hdf5::Dataset& Split::values(const std::string& name) const { return column(name).values; }

std::vector<std::int64_t> Split::lengths(const std::string& name) const {
  if (!column(name).ragged())
    fail("{}: the column '{}' is not ragged", group_.place().text(), name);
  const auto& offsets = column(name).offsets();
  std::vector<std::int64_t> lengths(offsets.size());
  std::adjacent_difference(offsets.begin(), offsets.end(), lengths.begin());
  lengths.erase(lengths.begin());
  return lengths;
}

std::vector<Sample> Split::read(std::span<const std::int64_t> rows) const {
  for (const auto row : rows) ATTUNE_ASSERT(row >= 0 && row < size_, "row {} of {}", row, size_);
  std::map<std::int64_t, Sample> by_row;
  for (const auto& run : runs_of(rows))
    for (const auto& [name, column] : columns_) {
      const auto begin = column.begin(run.first);
      const at::Tensor slab =
          column.values.read(begin, column.begin(run.first + run.count) - begin);
      for (auto row = run.first; row < run.first + run.count; ++row)
        by_row[row][name] = column.ragged() ? slab.narrow(0, column.begin(row) - begin,
                                                          column.begin(row + 1) - column.begin(row))
                                            : slab.select(0, row - begin);
    }
  std::vector<Sample> samples;
  for (const auto row : rows) samples.push_back(by_row.at(row));
  return samples;
}

std::string Split::sha256() const { return group_.attributes().text("sha256"); }

void Split::verify() const {
  if (content_sha256(group_) != sha256())
    fail(
        "{}: its content has changed since the file was made (sha256 differs); recreate or fetch "
        "the file again",
        group_.place().text());
}

std::string tokenizer_sha256(const nlohmann::json& tokenizer) {
  return attune::sha256(tokenizer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

namespace {

/// Adds all elements; a thread reads ahead of the sum, as both take about as long.
void add_elements(const hdf5::Dataset& dataset, Sha256& sum) {
  constexpr std::int64_t slab_bytes = 4 << 20;
  const auto rows = dataset.rows();
  const auto step =
      std::max<std::int64_t>(1, slab_bytes / std::max<std::int64_t>(1, dataset.row_bytes()));
  std::int64_t next = 0;
  Prefetch<at::Tensor> slabs(
      [&] {
        const auto first = std::exchange(next, std::min(next + step, rows));
        return dataset.read(first, next - first);
      },
      2);
  for (std::int64_t first = 0; first < rows; first += step) {
    const at::Tensor slab = slabs.next();
    sum.add(slab.data_ptr(), slab.nbytes());
  }
}

}  // namespace

std::string content_sha256(const hdf5::Group& split) {
  Sha256 sum;
  for (const auto& name : split.members()) {
    sum.add(name).add(std::string_view("\0", 1));
    add_elements(split.dataset(name), sum);
  }
  return sum.hex();
}

namespace {

hdf5::Group open_root(const std::filesystem::path& path) {
  hdf5::Group root = hdf5::open_file(path);
  const auto attributes = root.attributes();
  if (!attributes.has("format") || attributes.text("format") != data_format)
    fail(
        "{}: is an HDF5 file, but not a data set that 'attune prepare' made (no attribute format = "
        "\"{}\")",
        path.string(), data_format);
  if (const auto version = attributes.integer("version"); version != data_version)
    fail(
        "{}: has format version {} and this Attune reads version {}; prepare the data again with "
        "this version",
        path.string(), version, data_version);
  return root;
}

}  // namespace

DataFile::DataFile(const std::filesystem::path& path) : path_(path), root_(open_root(path)) {
  for (const auto& name : root_.members()) splits_.emplace(name, Split(root_.group(name)));
  if (splits_.empty()) fail("{}: has no splits; prepare the data again", path_.string());
}

DataFile DataFile::open(const std::filesystem::path& path, const Comm& comm) {
  std::unique_ptr<DataFile> file;
  comm.agree([&] { file.reset(new DataFile(path)); });
  return std::move(*file);
}

std::vector<std::string> DataFile::labels() const {
  return root_.attributes().has("labels") ? root_.attributes().texts("labels")
                                          : std::vector<std::string>{};
}

/// With what goes on in NAME.1, NAME.2, ...
std::string DataFile::long_text(const std::string& name) const {
  auto whole = text(name);
  for (std::size_t part = 1; root_.attributes().has(fmt::format("{}.{}", name, part)); ++part)
    whole += text(fmt::format("{}.{}", name, part));
  return whole;
}

DataFile::Chat DataFile::chat() const {
  if (!root_.attributes().has("chat_template")) return {};
  const auto tokens = nlohmann::json::parse(text("chat_tokens"), nullptr, false);
  if (!tokens.is_object())
    fail("{}: its attribute chat_tokens is not a JSON object; prepare the data again",
         path_.string());
  return {{long_text("chat_template"), long_text("chat_template_tools"),
           tokens.get<std::map<std::string, std::string>>()},
          text("chat_form")};
}

std::vector<double> DataFile::class_weights() const {
  return root_.attributes().has("class_weights") ? root_.attributes().numbers("class_weights")
                                                 : std::vector<double>{};
}

std::vector<std::pair<std::string, std::string>> DataFile::sources() const {
  const auto names = root_.attributes().texts("sources");
  const auto sums = root_.attributes().texts("sources_sha256");
  if (names.size() != sums.size())
    fail("{}: has {} sources and {} checksums of sources", path_.string(), names.size(),
         sums.size());
  std::vector<std::pair<std::string, std::string>> sources;
  for (std::size_t i = 0; i < names.size(); ++i) sources.emplace_back(names[i], sums[i]);
  return sources;
}

std::vector<std::string> DataFile::splits() const {
  std::vector<std::string> names;
  for (const auto& [name, split] : splits_) names.push_back(name);
  return names;
}

const Split& DataFile::split(const std::string& name) const {
  const auto found = splits_.find(name);
  if (found == splits_.end())
    fail("{}: there is no split '{}'; there are: {}", path_.string(), name, joined(splits()));
  return found->second;
}

Batch collate(const Dataset& dataset, const std::vector<Sample>& samples,
              std::span<const std::int64_t> rows) {
  Batch batch =
      call_plugin({"the dataset plugin", "collate", {}}, [&] { return dataset.collate(samples); });
  const auto made = batch.samples();
  const auto wanted = static_cast<std::int64_t>(rows.size());
  ATTUNE_ASSERT(made > 0 && made % wanted == 0, "{} samples made of {} rows", made, wanted);
  batch.ids.assign(rows.begin(), rows.end());
  return batch;
}

Batch load_batch(const Split& split, const Dataset& dataset, std::span<const std::int64_t> rows) {
  return collate(dataset, split.read(rows), rows);
}

}  // namespace attune
