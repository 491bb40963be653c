#include "parquet/parquet.hpp"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <nlohmann/json.hpp>
#include <string>

namespace {
using nlohmann::json;

constexpr std::int64_t rows_at_once = 1024;

/// Throws what Arrow says.
void check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

template <class T>
T check(arrow::Result<T> result) {
  check(result.status());
  return std::move(result).ValueUnsafe();
}

json cell(const arrow::Array& array, std::int64_t i);

template <class List>
json list(const arrow::Array& array, std::int64_t i) {
  const auto& typed = static_cast<const List&>(array);
  json values = json::array();
  for (auto at = typed.value_offset(i); at < typed.value_offset(i) + typed.value_length(i); ++at) values.push_back(cell(*typed.values(), at));
  return values;
}

json table(const arrow::Array& array, std::int64_t i) {
  const auto& typed = static_cast<const arrow::StructArray&>(array);
  json values = json::object();
  for (int field = 0; field < typed.num_fields(); ++field) values[typed.type()->field(field)->name()] = cell(*typed.field(field), i);
  return values;
}

template <class Typed>
json value(const arrow::Array& array, std::int64_t i) {
  return static_cast<const Typed&>(array).Value(i);
}

template <class Typed>
json text(const arrow::Array& array, std::int64_t i) {
  return std::string(static_cast<const Typed&>(array).GetView(i));
}

json cell(const arrow::Array& array, std::int64_t i) {
  if (array.IsNull(i)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::STRING: return text<arrow::StringArray>(array, i);
    case arrow::Type::LARGE_STRING: return text<arrow::LargeStringArray>(array, i);
    case arrow::Type::STRING_VIEW: return text<arrow::StringViewArray>(array, i);
    case arrow::Type::BOOL: return value<arrow::BooleanArray>(array, i);
    case arrow::Type::INT8: return value<arrow::Int8Array>(array, i);
    case arrow::Type::INT16: return value<arrow::Int16Array>(array, i);
    case arrow::Type::INT32: return value<arrow::Int32Array>(array, i);
    case arrow::Type::INT64: return value<arrow::Int64Array>(array, i);
    case arrow::Type::UINT8: return value<arrow::UInt8Array>(array, i);
    case arrow::Type::UINT16: return value<arrow::UInt16Array>(array, i);
    case arrow::Type::UINT32: return value<arrow::UInt32Array>(array, i);
    case arrow::Type::UINT64: return value<arrow::UInt64Array>(array, i);
    case arrow::Type::FLOAT: return value<arrow::FloatArray>(array, i);
    case arrow::Type::DOUBLE: return value<arrow::DoubleArray>(array, i);
    case arrow::Type::LIST: return list<arrow::ListArray>(array, i);
    case arrow::Type::LARGE_LIST: return list<arrow::LargeListArray>(array, i);
    case arrow::Type::STRUCT: return table(array, i);
    case arrow::Type::DICTIONARY: {
      const auto& typed = static_cast<const arrow::DictionaryArray&>(array);
      return cell(*typed.dictionary(), typed.GetValueIndex(i));
    }
    default: return check(array.GetScalar(i))->ToString();  // dates, times, decimals
  }
}

std::unique_ptr<parquet::ParquetFileReader> open(const char* path) {
  // Pages are read as they are needed: a row group need not fit into memory.
  auto properties = parquet::default_reader_properties();
  properties.enable_buffered_stream();
  return parquet::ParquetFileReader::OpenFile(path, false, properties);
}

/// Runs work; what it throws becomes the answer.
template <class Work>
const char* answer(Work work) {
  thread_local std::string text;
  try {
    work();
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

}  // namespace

const char* attune_parquet_scan(const char* path, void* to, bool (*group)(void*, std::int64_t, std::int64_t)) {
  return answer([&] {
    const auto metadata = open(path)->metadata();
    for (int i = 0; i < metadata->num_row_groups(); ++i)
      if (!group(to, metadata->RowGroup(i)->num_rows(), metadata->RowGroup(i)->total_byte_size())) return;
  });
}

const char* attune_parquet_read(const char* path, std::int64_t group, void* to, bool (*row)(void*, const char*, std::size_t)) {
  return answer([&] {
    parquet::ArrowReaderProperties properties(false);
    properties.set_batch_size(rows_at_once);
    properties.set_pre_buffer(false);
    std::unique_ptr<parquet::arrow::FileReader> reader;
    parquet::arrow::FileReaderBuilder builder;
    auto reader_properties = parquet::default_reader_properties();
    reader_properties.enable_buffered_stream();
    check(builder.OpenFile(path, false, reader_properties));
    check(builder.properties(properties)->Build(&reader));
    const auto batches = check(reader->GetRecordBatchReader({static_cast<int>(group)}));
    for (std::shared_ptr<arrow::RecordBatch> batch; batch = check(batches->Next()), batch;)
      for (std::int64_t i = 0; i < batch->num_rows(); ++i) {
        json object = json::object();
        for (int column = 0; column < batch->num_columns(); ++column) object[batch->column_name(column)] = cell(*batch->column(column), i);
        const auto line = object.dump(-1, ' ', false, json::error_handler_t::replace);
        if (!row(to, line.data(), line.size())) return;
      }
  });
}
