#include "prepare/writer.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <attune/error.hpp>

#include <algorithm>

#include "data/store.hpp"

namespace attune {
using nlohmann::json;
namespace {

/// The rows of a column's dataset that come from these samples.
at::Tensor values_of(const std::vector<Sample>& samples, const std::string& name,
                     at::ScalarType dtype, bool ragged, std::vector<std::int64_t> item) {
  if (samples.empty()) {
    item.insert(item.begin(), 0);
    return at::empty(item, dtype);
  }
  std::vector<at::Tensor> parts;
  for (const auto& sample : samples) parts.push_back(sample.at(name));
  return ragged ? at::cat(parts) : at::stack(parts);
}

/// Where each of these samples ends, when the first begins at `at`.
at::Tensor ends_of(const std::vector<Sample>& samples, const std::string& name, std::int64_t at) {
  at::Tensor ends = at::empty({std::ssize(samples)}, at::kLong);
  auto* to = ends.data_ptr<std::int64_t>();
  for (const auto& sample : samples) *to++ = at += sample.at(name).size(0);
  return ends;
}

}  // namespace

SplitWriter::SplitWriter(const hdf5::Group& root, const std::string& name, std::size_t rounds,
                         const Comm& comm)
    : group_(root.create_group(name)), rounds_(rounds), comm_(comm) {}

hdf5::Dataset SplitWriter::create(const std::string& name, at::ScalarType dtype,
                                  const std::vector<std::int64_t>& item, std::int64_t rows) const {
  constexpr std::int64_t chunk_bytes = 1 << 16;
  auto bytes = static_cast<std::int64_t>(c10::elementSize(dtype)) * rows;
  for (const auto size : item) bytes *= size;
  return group_.create_growing(name, dtype, item,
                               rounds_ == 1 ? std::min(bytes, chunk_bytes) : chunk_bytes);
}

json SplitWriter::summary(const std::vector<Sample>& samples) {
  json columns = json::object();
  for (const auto& [name, first] : samples.empty() ? Sample{} : samples.front()) {
    const bool ragged = first.dim() == 1;
    std::int64_t elements = 0;
    for (const auto& sample : samples) {
      ATTUNE_ASSERT(sample.contains(name), "column {} is not in every sample", name);
      const auto& value = sample.at(name);
      ATTUNE_ASSERT(value.scalar_type() == first.scalar_type() &&
                        (ragged ? value.dim() == 1 : value.sizes() == first.sizes()),
                    "column {} is not the same in every sample", name);
      elements += ragged ? value.size(0) : 1;
    }
    json item = ragged ? std::vector<std::int64_t>{} : first.sizes().vec();
    columns[name] = {{"form",
                      {{"dtype", static_cast<int>(first.scalar_type())},
                       {"ragged", ragged},
                       {"item", std::move(item)}}},
                     {"elements", elements}};
  }
  for (const auto& sample : samples)
    ATTUNE_ASSERT(sample.size() == columns.size(), "{} columns in a sample, and {} in the first",
                  sample.size(), columns.size());
  return {{"samples", samples.size()}, {"columns", std::move(columns)}};
}

SplitWriter::Column& SplitWriter::column(const std::string& name, const json& form,
                                         std::int64_t elements, std::int64_t samples) {
  const auto dtype = static_cast<at::ScalarType>(form.at("dtype").get<int>());
  const bool ragged = form.at("ragged");
  const auto item = form.at("item").get<std::vector<std::int64_t>>();
  const auto known = columns_.find(name);
  if (known != columns_.end()) {
    ATTUNE_ASSERT(known->second.dtype == dtype && known->second.ragged == ragged &&
                      known->second.item == item,
                  "column {} is not the same in every sample", name);
    return known->second;
  }
  ATTUNE_ASSERT(samples_ == 0, "column {} is not in every sample", name);
  Column column{dtype, ragged, item, create(name, dtype, item, elements), std::nullopt};
  if (ragged) {
    column.offsets = create(name + offsets_suffix, at::kLong, {}, samples + 1);
    column.offsets->grow(1);
    write_rows(*column.offsets, 0, at::zeros({comm_.root() ? 1 : 0}, at::kLong));
  }
  return columns_.emplace(name, std::move(column)).first->second;
}

void SplitWriter::append(const std::vector<Sample>& samples, const std::vector<json>& summaries) {
  std::int64_t count = 0;
  std::map<std::string, json> forms;
  for (const auto& one : summaries) {
    count += one.at("samples").get<std::int64_t>();
    for (const auto& [name, column] : one.at("columns").items()) forms[name] = column.at("form");
  }
  if (count == 0) return;
  ATTUNE_ASSERT(samples_ == 0 || forms.size() == columns_.size(), "{} columns, and {} before",
                forms.size(), columns_.size());
  for (const auto& [name, form] : forms) append_column(name, form, samples, summaries);
  samples_ += count;
}

void SplitWriter::append_column(const std::string& name, const json& form,
                                const std::vector<Sample>& samples,
                                const std::vector<json>& summaries) {
  std::int64_t elements = 0;
  std::int64_t first = 0;
  std::int64_t rows = 0;
  std::int64_t first_row = 0;
  for (std::size_t rank = 0; rank < summaries.size(); ++rank) {
    if (static_cast<int>(rank) == comm_.rank()) {
      first = elements;
      first_row = rows;
    }
    const auto& one = summaries[rank];
    if (one.at("samples") == 0) continue;
    ATTUNE_ASSERT(one.at("columns").contains(name), "column {} is not in every sample", name);
    elements += one.at("columns").at(name).at("elements").get<std::int64_t>();
    rows += one.at("samples").get<std::int64_t>();
  }
  auto& column = this->column(name, form, elements, rows);
  const auto before = column.values.rows();
  column.values.grow(elements);
  write_rows(column.values, before + first,
             values_of(samples, name, column.dtype, column.ragged, column.item));
  if (!column.ragged) return;
  column.offsets->grow(rows);
  write_rows(*column.offsets, 1 + samples_ + first_row, ends_of(samples, name, before + first));
}

/// In pieces that MPI-IO can take.
void SplitWriter::write_rows(const hdf5::Dataset& dataset, std::int64_t first,
                             const at::Tensor& rows) const {
  constexpr std::int64_t piece_bytes = 64 << 20;
  const auto step =
      std::max<std::int64_t>(1, piece_bytes / std::max<std::int64_t>(1, dataset.row_bytes()));
  const auto pieces = comm_.max((rows.size(0) + step - 1) / step);
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const auto begin = std::min(piece * step, rows.size(0));
    dataset.write(first + begin, rows.narrow(0, begin, std::min(step, rows.size(0) - begin)));
  }
}

}  // namespace attune
