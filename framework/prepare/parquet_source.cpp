// Parquet, through libattune_parquet.so.
#include "parquet/parquet.hpp"

#include <attune/error.hpp>
#include <dlfcn.h>

#include <exception>

#include "prepare/formats.hpp"
#include "prepare/values.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

constexpr const char* parquet_library = "libattune_parquet.so";

struct Parquet {
  decltype(&attune_parquet_scan) scan;
  decltype(&attune_parquet_read) read;
};

/// Beside this library or program, or in the folder above; "": nowhere.
fs::path parquet_library_path() {
  Dl_info self{};
  dladdr(reinterpret_cast<const void*>(&parquet_library_path), &self);
  const auto folder = fs::canonical(self.dli_fname).parent_path();
  for (const auto& place : {folder, folder.parent_path()})
    if (fs::exists(place / parquet_library)) return place / parquet_library;
  return {};
}

/// Never closed.
void* open_parquet_library() {
  const auto path = parquet_library_path();
  return path.empty() ? nullptr : dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
}

const Parquet& parquet(const fs::path& path) {
  static void* const library = open_parquet_library();
  if (!library) {
    const char* reason = dlerror();
    fail(
        "{}: this Attune was built without Parquet{}; run launchers/setup, which installs Arrow "
        "and rebuilds, or convert the file to JSON Lines",
        path.string(), reason ? fmt::format(" ({})", reason) : "");
  }
  static const Parquet functions{
      reinterpret_cast<decltype(&attune_parquet_scan)>(dlsym(library, "attune_parquet_scan")),
      reinterpret_cast<decltype(&attune_parquet_read)>(dlsym(library, "attune_parquet_read"))};
  ATTUNE_ASSERT(functions.scan && functions.read, "{} lacks a function", parquet_library);
  return functions;
}

void check_parquet(const fs::path& path, const char* wrong) {
  if (wrong) fail("{}: cannot be read as Parquet ({}); fetch it again", path.string(), wrong);
}

void scan_parquet(Source& source) {
  if (!fs::is_regular_file(source.path)) fail("{}: there is no such file", source.path.string());
  std::int64_t row = 1;
  const auto add = [&](std::int64_t rows, std::int64_t bytes) {
    const auto group = source.blocks.size();
    source.blocks.push_back({group, group + 1, row, static_cast<std::uint64_t>(bytes)});
    row += rows;
  };
  const auto group = [](void* to, std::int64_t rows, std::int64_t bytes) {
    return (*static_cast<decltype(add)*>(to))(rows, bytes), true;
  };
  check_parquet(source.path, parquet(source.path)
                                 .scan(source.path.c_str(),
                                       const_cast<void*>(static_cast<const void*>(&add)), group));
  source.sha256 = sha256_of_file(source.path);
}

/// What a row's callback needs; exceptions wait here until Arrow's code is left.
struct ParquetRows {
  const Source& source;
  Ledger& ledger;
  const UseRecord& use;
  std::int64_t number;
  std::exception_ptr thrown;

  void take(std::string_view text) {
    const Row row{source.options.path, number++};
    ledger.guard(source.skips_bad_rows(), row.source, row.number, [&] {
      auto record = record_of(source.options, row,
                              RowJson::parse(sound_text(std::string(text), row, ledger)));
      use(record);
    });
  }
  static bool row(void* to, const char* text, std::size_t length) {
    auto& rows = *static_cast<ParquetRows*>(to);
    try {
      rows.take({text, length});
    } catch (...) {
      rows.thrown = std::current_exception();
    }
    return !rows.thrown;
  }
};

void read_parquet(const Source& source, const Block& block, Ledger& ledger, const UseRecord& use) {
  ParquetRows rows{source, ledger, use, block.first_row, nullptr};
  const char* wrong = parquet(source.path)
                          .read(source.path.c_str(), static_cast<std::int64_t>(block.begin), &rows,
                                ParquetRows::row);
  if (rows.thrown) std::rethrow_exception(rows.thrown);
  check_parquet(source.path, wrong);
}

}  // namespace

bool reads_parquet() { return !parquet_library_path().empty(); }

const SourceFormat parquet_format{scan_parquet, read_parquet};

}  // namespace attune
