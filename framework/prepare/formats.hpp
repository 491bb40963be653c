// Source formats: how each is divided into blocks, and how a block is read.
#pragma once
#include "core/hash.hpp"
#include "prepare/source.hpp"
#include "prepare/unpacked.hpp"

namespace attune {

/// Approximate size of a read; blocks end at record boundaries.
inline constexpr std::uint64_t block_bytes = 4 << 20;
/// Maximum record size, so that an unclosed quote or a file without line ends cannot exhaust
/// memory.
inline constexpr std::uint64_t largest_record = 256 << 20;

using UseRecord = std::function<void(Record&)>;

struct SourceFormat {
  /// Sets sha256, blocks, header and files.
  void (*scan)(Source& source);
  /// As read_block().
  void (*read)(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use);
};

extern const SourceFormat json_lines_format, json_list_format, csv_format, tsv_format,
    parquet_format, text_format, images_format, idx_format;

/// Divides the source into blocks of whole lines.
void scan_lines(Source& source);

/// Reads a file once and passes its contents to `feed`, decompressed and without a byte order mark.
/// Returns the size of that mark in bytes. Sets the source's sha256.
std::uint64_t scan_bytes(Source& source, const std::function<void(std::string_view)>& feed);

/// Blocks for `count` items of equal size.
std::vector<Block> item_blocks(std::uint64_t count, std::uint64_t item_bytes);

}  // namespace attune
