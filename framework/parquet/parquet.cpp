#include "parquet/parquet.hpp"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/util/float16.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

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

// --- Values as JSON. Texts keep their bytes, whether they are UTF-8 or not: the reader of sources
// counts those that are not.

void write_text(std::string_view text, std::string& to) {
  to += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      to += '\\';
      to += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      to += escaped;
    } else {
      to += c;
    }
  }
  to += '"';
}

bool is_utf8(std::string_view bytes) {
  try {
    json(bytes).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

/// What has no text here: other_key of prepare/values.hpp.
void write_unread(const std::string& type, std::string& to) {
  to += "{\"\\u0001type\":" + json(type).dump() + "}";
}

/// Bytes are a text where they can be: many writers leave out that a column is one.
void write_bytes(std::string_view bytes, std::string& to) {
  if (is_utf8(bytes)) return write_text(bytes, to);
  // bytes_key of prepare/values.hpp
  to += "{\"\\u0001bytes\":" + std::to_string(bytes.size()) + "}";
}

/// A number that is none stands for a missing value, as in pandas. JSON has no infinity: it becomes
/// Python's text for it.
void write_number(double number, std::string& to) {
  if (std::isnan(number))
    to += "null";
  else if (std::isinf(number))
    to += number > 0 ? "\"inf\"" : "\"-inf\"";
  else
    to += json(number).dump();
}

/// 0.1 and not 0.10000000149011612.
void write_number(float number, std::string& to) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits - 1, number).ptr;
  *end = '\0';
  write_number(std::strtod(digits, nullptr), to);
}

/// Python's form: no fraction of a second where it is zero, six digits of it or nine; the zone as
/// an offset.
std::string python_time(std::string text) {
  const bool utc = text.ends_with('Z');
  if (utc) text.pop_back();
  if (const auto point = text.find('.'); point != std::string::npos) {
    text.erase(std::max(text.find_last_not_of('0') + 1, point));
    if (text.ends_with('.'))
      text.pop_back();
    else
      text.resize(std::max(text.size(), point + 1 + (text.size() > point + 7 ? 9u : 6u)), '0');
  }
  return utc ? text + "+00:00" : text;
}

void write_cell(const arrow::Array& array, std::int64_t i, std::string& to);

void write_list(const arrow::Array& values, std::int64_t begin, std::int64_t length,
                std::string& to) {
  to += '[';
  for (auto at = begin; at < begin + length; ++at) {
    if (at > begin) to += ',';
    write_cell(values, at, to);
  }
  to += ']';
}

template <class List>
void write_list(const arrow::Array& array, std::int64_t i, std::string& to) {
  const auto& list = static_cast<const List&>(array);
  write_list(*list.values(), list.value_offset(i), list.value_length(i), to);
}

/// Every row of a table has all keys of a structure: a null stands for a key that is absent.
void write_structure(const arrow::Array& array, std::int64_t i, std::string& to) {
  const auto& structure = static_cast<const arrow::StructArray&>(array);
  to += '{';
  bool first = true;
  for (int field = 0; field < structure.num_fields(); ++field) {
    std::string value;
    write_cell(*structure.field(field), i, value);
    if (value == "null") continue;
    if (!std::exchange(first, false)) to += ',';
    write_text(structure.type()->field(field)->name(), to);
    to += ':' + value;
  }
  to += '}';
}

void write_map(const arrow::Array& array, std::int64_t i, std::string& to) {
  const auto& map = static_cast<const arrow::MapArray&>(array);
  to += '{';
  for (auto at = map.value_offset(i); at < map.value_offset(i + 1); ++at) {
    if (at > map.value_offset(i)) to += ',';
    std::string key;
    write_cell(*map.keys(), at, key);
    if (key.starts_with('"'))
      to += key;
    else
      write_text(key, to);
    to += ':';
    write_cell(*map.items(), at, to);
  }
  to += '}';
}

template <class Typed>
auto value(const arrow::Array& array, std::int64_t i) {
  return static_cast<const Typed&>(array).Value(i);
}

template <class Typed>
std::string_view view(const arrow::Array& array, std::int64_t i) {
  return static_cast<const Typed&>(array).GetView(i);
}

void write_cell(const arrow::Array& array, std::int64_t i, std::string& to) {
  if (array.IsNull(i)) return void(to += "null");
  switch (array.type_id()) {
    case arrow::Type::STRING: return write_text(view<arrow::StringArray>(array, i), to);
    case arrow::Type::LARGE_STRING: return write_text(view<arrow::LargeStringArray>(array, i), to);
    case arrow::Type::STRING_VIEW: return write_text(view<arrow::StringViewArray>(array, i), to);
    case arrow::Type::BINARY: return write_bytes(view<arrow::BinaryArray>(array, i), to);
    case arrow::Type::LARGE_BINARY: return write_bytes(view<arrow::LargeBinaryArray>(array, i), to);
    case arrow::Type::BINARY_VIEW: return write_bytes(view<arrow::BinaryViewArray>(array, i), to);
    case arrow::Type::FIXED_SIZE_BINARY:
      return write_bytes(view<arrow::FixedSizeBinaryArray>(array, i), to);
    case arrow::Type::BOOL:
      return void(to += value<arrow::BooleanArray>(array, i) ? "true" : "false");
    case arrow::Type::INT8: return void(to += std::to_string(value<arrow::Int8Array>(array, i)));
    case arrow::Type::INT16: return void(to += std::to_string(value<arrow::Int16Array>(array, i)));
    case arrow::Type::INT32: return void(to += std::to_string(value<arrow::Int32Array>(array, i)));
    case arrow::Type::INT64: return void(to += std::to_string(value<arrow::Int64Array>(array, i)));
    case arrow::Type::UINT8: return void(to += std::to_string(value<arrow::UInt8Array>(array, i)));
    case arrow::Type::UINT16:
      return void(to += std::to_string(value<arrow::UInt16Array>(array, i)));
    case arrow::Type::UINT32:
      return void(to += std::to_string(value<arrow::UInt32Array>(array, i)));
    case arrow::Type::UINT64:
      return void(to += std::to_string(value<arrow::UInt64Array>(array, i)));
    case arrow::Type::HALF_FLOAT:
      return write_number(
          arrow::util::Float16::FromBits(value<arrow::HalfFloatArray>(array, i)).ToFloat(), to);
    case arrow::Type::FLOAT: return write_number(value<arrow::FloatArray>(array, i), to);
    case arrow::Type::DOUBLE: return write_number(value<arrow::DoubleArray>(array, i), to);
    case arrow::Type::LIST: return write_list<arrow::ListArray>(array, i, to);
    case arrow::Type::LARGE_LIST: return write_list<arrow::LargeListArray>(array, i, to);
    case arrow::Type::FIXED_SIZE_LIST: return write_list<arrow::FixedSizeListArray>(array, i, to);
    case arrow::Type::MAP: return write_map(array, i, to);
    case arrow::Type::STRUCT: return write_structure(array, i, to);
    case arrow::Type::DICTIONARY: {
      const auto& typed = static_cast<const arrow::DictionaryArray&>(array);
      return write_cell(*typed.dictionary(), typed.GetValueIndex(i), to);
    }
    case arrow::Type::EXTENSION:
      return write_cell(*static_cast<const arrow::ExtensionArray&>(array).storage(), i, to);
    case arrow::Type::TIMESTAMP:
    case arrow::Type::TIME32:
    case arrow::Type::TIME64:
      return write_text(python_time(check(array.GetScalar(i))->ToString()), to);
    case arrow::Type::DATE32:
    case arrow::Type::DATE64:
    case arrow::Type::DECIMAL32:
    case arrow::Type::DECIMAL64:
    case arrow::Type::DECIMAL128:
    case arrow::Type::DECIMAL256: return write_text(check(array.GetScalar(i))->ToString(), to);
    default: return write_unread(array.type()->ToString(), to);  // durations
  }
}

std::string row_of(const arrow::RecordBatch& batch, std::int64_t i) {
  std::string row = "{";
  for (int column = 0; column < batch.num_columns(); ++column) {
    if (column > 0) row += ',';
    write_text(batch.column_name(column), row);
    row += ':';
    write_cell(*batch.column(column), i, row);
  }
  return row + "}";
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

const char* attune_parquet_scan(const char* path, void* to,
                                bool (*group)(void*, std::int64_t, std::int64_t)) {
  return answer([&] {
    const auto metadata = open(path)->metadata();
    for (int i = 0; i < metadata->num_row_groups(); ++i)
      if (!group(to, metadata->RowGroup(i)->num_rows(), metadata->RowGroup(i)->total_byte_size()))
        return;
  });
}

const char* attune_parquet_read(const char* path, std::int64_t group, void* to,
                                bool (*row)(void*, const char*, std::size_t)) {
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
        const auto line = row_of(*batch, i);
        if (!row(to, line.data(), line.size())) return;
      }
  });
}
