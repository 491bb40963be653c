// IDX, the format of MNIST (LeCun, Cortes and Burges, "The MNIST database"): a magic number that
// gives type and dimensions, their sizes (32 bits, big-endian), then the values.
#include <ATen/ops/empty.h>
#include <attune/error.hpp>

#include <algorithm>

#include "prepare/formats.hpp"
#include "prepare/row.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t largest_item = 256 << 20;

struct IdxHeader {
  std::uint64_t bytes = 0;           // of the header
  std::vector<std::uint64_t> sizes;  // the first is the number of items
  std::uint64_t item_bytes = 1;
};

/// Of values of one byte; of `dimensions`: any of these numbers.
IdxHeader read_idx_header(const fs::path& path, std::initializer_list<int> dimensions) {
  UnpackedFile file(path);
  unsigned char head[4 + 4 * 4];
  const auto got = file.read(reinterpret_cast<char*>(head), sizeof head);
  const int count = got >= 4 ? head[3] : 0;
  if (got < 4 || head[0] != 0 || head[1] != 0 || head[2] != 8 ||
      std::find(dimensions.begin(), dimensions.end(), count) == dimensions.end() ||
      got < 4 + 4 * static_cast<std::size_t>(count))
    fail("{}: is not an IDX file of {} (bytes of 8 bits)", path.string(),
         *dimensions.begin() == 1 ? "labels" : "pictures");
  IdxHeader header;
  header.bytes = 4 + 4 * static_cast<std::uint64_t>(count);
  for (int i = 0; i < count; ++i) {
    const auto* b = head + 4 + 4 * i;
    header.sizes.push_back(std::uint64_t{b[0]} << 24 | std::uint64_t{b[1]} << 16 |
                           std::uint64_t{b[2]} << 8 | b[3]);
    if (i > 0 &&
        (header.sizes.back() == 0 || header.sizes.back() > largest_item / header.item_bytes))
      fail("{}: claims images of impossible size; it is damaged", path.string());
    if (i > 0) header.item_bytes *= header.sizes.back();
  }
  return header;
}

fs::path labels_path(const Source& source) {
  return source.path.parent_path() / source.options.labels;
}

void check_length(const fs::path& path, std::uint64_t found, std::uint64_t wanted) {
  if (found != wanted)
    fail("{}: has {} bytes, but its header requires {}; it is truncated or damaged: fetch it again",
         path.string(), found, wanted);
}

std::string scanned(const fs::path& path, const IdxHeader& header) {
  Source file;
  file.path = path;
  std::uint64_t bytes = 0;
  scan_bytes(file, [&](std::string_view more) { bytes += more.size(); });
  check_length(path, bytes, header.bytes + header.sizes[0] * header.item_bytes);
  return file.sha256;
}

void scan_idx(Source& source) {
  const auto pictures = read_idx_header(source.path, {3, 4});
  source.sha256 = scanned(source.path, pictures);
  source.blocks = item_blocks(pictures.sizes[0], pictures.item_bytes);
  if (source.options.labels.empty()) return;
  const auto path = labels_path(source);
  const auto labels = read_idx_header(path, {1});
  if (labels.sizes[0] != pictures.sizes[0])
    fail("{}: has {} labels for the {} images of {}", path.string(), labels.sizes[0],
         pictures.sizes[0], source.path.string());
  source.sha256 =
      sha256(fmt::format("{}  {}\n{}  {}\n", source.sha256, source.path.filename().string(),
                         scanned(path, labels), path.filename().string()));
}

void read_idx(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  const auto header = read_idx_header(source.path, {3, 4});
  const auto item = header.item_bytes;
  const auto pixels =
      source.range(header.bytes + block.begin * item, header.bytes + block.end * item);
  std::string labels;
  if (!source.options.labels.empty()) {
    const auto first = read_idx_header(labels_path(source), {1}).bytes;
    labels = UnpackedFile(labels_path(source)).range(first + block.begin, first + block.end);
  }
  const auto size = [&](std::size_t i) { return static_cast<std::int64_t>(header.sizes[i]); };
  for (std::uint64_t i = 0; i < block.end - block.begin; ++i) {
    Record record;
    record.source = source.options.path;
    record.row = block.first_row + static_cast<std::int64_t>(i);
    record.image = at::empty({size(1), size(2), header.sizes.size() == 4 ? size(3) : 1}, at::kByte);
    std::copy_n(pixels.data() + i * item, item, record.image.data_ptr<std::uint8_t>());
    if (!labels.empty())
      record.fields["label"] = std::to_string(static_cast<unsigned char>(labels[i]));
    use(record);
  }
}

}  // namespace

const SourceFormat idx_format{scan_idx, read_idx};

}  // namespace attune
