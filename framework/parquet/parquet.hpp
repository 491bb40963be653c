// What libattune_parquet.so exports. A library of its own, opened when a recipe names a Parquet
// file: nothing else needs Arrow.
#pragma once
#include <attune/api.hpp>

#include <cstddef>
#include <cstdint>

ATTUNE_API_BEGIN
extern "C" {

/// Both return null, or what is wrong in words (valid until the thread's next call). Exceptions of
/// a callback are the caller's to keep: it returns false to stop.

/// Calls group(to, rows, bytes) for every row group, in order.
const char* attune_parquet_scan(const char* path, void* to,
                                bool (*group)(void* to, std::int64_t rows, std::int64_t bytes));

/// Calls row(to, json, length) for every row of a row group, in order, with the row as a JSON
/// object.
const char* attune_parquet_read(const char* path, std::int64_t group, void* to,
                                bool (*row)(void* to, const char* json, std::size_t length));
}
ATTUNE_API_END
