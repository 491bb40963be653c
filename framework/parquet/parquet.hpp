// Exports of libattune_parquet.so. It is a separate library, loaded only if a recipe names a
// Parquet file, because nothing else needs Arrow.
#pragma once
#include <attune/api.hpp>

#include <cstddef>
#include <cstdint>

ATTUNE_API_BEGIN
extern "C" {

/// Both functions return null, or an error message that is valid until the thread's next call. A
/// callback must not throw; it returns false to stop.

/// Calls group(to, rows, bytes) for every row group, in order.
const char* attune_parquet_scan(const char* path, void* to,
                                bool (*group)(void* to, std::int64_t rows, std::int64_t bytes));

/// Calls row(to, json, length) for every row of a row group, in order, with the row as a JSON
/// object.
const char* attune_parquet_read(const char* path, std::int64_t group, void* to,
                                bool (*row)(void* to, const char* json, std::size_t length));
}
ATTUNE_API_END
