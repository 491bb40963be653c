// Folders: of texts, and of pictures by class.
#include <attune/error.hpp>
#include <fnmatch.h>

#include <algorithm>

#include "core/files.hpp"
#include "prepare/formats.hpp"
#include "prepare/picture.hpp"
#include "prepare/row.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

std::vector<std::string> files_in(const fs::path& folder, const std::string& pattern) {
  if (!fs::is_directory(folder))
    fail("{}: is not a folder, but this format reads the files of a folder", folder.string());
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    auto name = entry.path().lexically_relative(folder).generic_string();
    if (entry.is_regular_file() && fnmatch(pattern.c_str(), name.c_str(), 0) == 0)
      names.push_back(std::move(name));
  }
  if (names.empty()) fail("{}: no file in it matches files = \"{}\"", folder.string(), pattern);
  std::sort(names.begin(), names.end());
  return names;
}

void scan_folder(Source& source) {
  source.files = files_in(source.path, source.options.files);
  Sha256 sum;
  Block block;
  const auto& files = source.files;
  for (std::size_t i = 0; i < files.size(); ++i) {
    sum.add(sha256_of_file(source.path / files[i])).add("  ").add(files[i]).add("\n");
    block.bytes += fs::file_size(source.path / files[i]);
    block.end = i + 1;
    if (block.bytes < block_bytes && block.end < files.size()) continue;
    source.blocks.push_back(block);
    block = {i + 1, i + 1, 1, 0};
  }
  source.sha256 = sum.hex();
}

/// make(row, path, record) for each of a block's files.
template <class Make>
void read_files(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use,
                Make make) {
  for (auto i = block.begin; i < block.end; ++i) {
    const auto& file = source.files[i];
    const auto name = (fs::path(source.options.path) / file).generic_string();
    ledger.guard(source.skips_bad_rows(), name, 1, [&] {
      Record record;
      record.source = name;
      record.row = 1;
      make(Row{name, 1}, source.path / file, record);
      use(record);
    });
  }
}

void read_texts(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  read_files(source, block, ledger, use, [&](const Row& row, const fs::path& path, Record& record) {
    auto text = read_unpacked(path);
    if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
      bad_row(row, "not UTF-8", "is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)");
    record.fields["text"] = sound_text(with_line_feeds(std::move(text)), row, ledger);
  });
}

void read_pictures(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  read_files(source, block, ledger, use, [&](const Row& row, const fs::path& path, Record& record) {
    record.image = decode_picture(row, read_unpacked(path));
    if (const auto folder = path.lexically_relative(source.path).parent_path(); !folder.empty())
      record.fields["label"] = folder.filename().string();
  });
}

}  // namespace

const SourceFormat text_format{scan_folder, read_texts};
const SourceFormat images_format{scan_folder, read_pictures};

}  // namespace attune
