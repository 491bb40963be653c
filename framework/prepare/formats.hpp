// The forms a source may have: how each is cut into blocks, and how a block is read.
#pragma once
#include "core/hash.hpp"
#include "prepare/source.hpp"
#include "prepare/unpacked.hpp"

namespace attune {

/// What a rank reads at once, about; blocks end where a record does.
inline constexpr std::uint64_t block_bytes = 4 << 20;
/// No record is longer: a quote that is never closed, or a file without line ends, must not fill
/// the memory.
inline constexpr std::uint64_t largest_record = 256 << 20;

using UseRecord = std::function<void(Record&)>;

struct SourceFormat {
  /// Fills in sha256, blocks, header and files.
  void (*scan)(Source& source);
  /// See read_block.
  void (*read)(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use);
};

extern const SourceFormat json_lines_format, json_list_format, csv_format, tsv_format,
    parquet_format, text_format, images_format, idx_format;

/// Blocks of whole lines.
void scan_lines(Source& source);

/// Reads a file once: feed(bytes) sees all of it, unpacked and in order, without a byte order mark.
/// Returns how many bytes that mark had. Sets the source's sha256.
std::uint64_t scan_bytes(Source& source, const std::function<void(std::string_view)>& feed);

/// Blocks of `count` equal items.
std::vector<Block> item_blocks(std::uint64_t count, std::uint64_t item_bytes);

}  // namespace attune
