#include "readers.hpp"

#include <attune/error.hpp>
#include <attune/tokenizer.hpp>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/card.hpp"
#include "data/store.hpp"
#include "prepare/source.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"

namespace attune::fuzz {
namespace {
namespace fs = std::filesystem;

/// The bytes as a file, in memory where there is a place for it; gone with this object.
class InputFile {
 public:
  InputFile(std::string_view bytes, const char* ending) : path_(folder() / ("attune-fuzz-" + std::to_string(::getpid()) + ending)) {
    std::ofstream(path_, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  ~InputFile() { fs::remove(path_); }
  const fs::path& path() const { return path_; }

 private:
  static fs::path folder() { return fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path(); }
  fs::path path_;
};

/// Whether it was read to its end.
template <class Work>
bool is_read(Work work) {
  try {
    work();
    return true;
  } catch (const Error&) {
    return false;
  }
}

void read_records(const fs::path& path, const std::string& format, const std::string& layout, const std::string& on_error) {
  SourceOptions options;
  options.path = path.string(), options.format = format, options.layout = layout, options.on_error = on_error;
  Ledger ledger(/*listing=*/true);
  const auto source = scan_source(options, path);
  for (const auto& block : source.blocks)
    read_block(source, block, ledger, [&](Record& record) { ledger.drop("seen", record); });
}

void read_json(std::string_view bytes) {
  const InputFile file(bytes, ".json");
  for (const char* format : {"json", "jsonl"})
    for (const char* layout : {"", "prompt_completion", "alpaca", "messages", "preference"})
      is_read([&] { read_records(file.path(), format, layout, "skip"); });
}

void tokenize(const nlohmann::json& json) {
  const Tokenizer tokenizer(json);
  for (const char* text : {"", "ab a<s> \u00e9 12\xFF" "b-b", "aaaa  bbbb\n", "\u1e9b\u0323 \u4e2d\u6587 1234567"})
    is_read([&] { tokenizer.decode(tokenizer.encode_with_spans(text).ids, false); });
}

void read_tokenizer(std::string_view bytes) {
  const InputFile file(bytes, ".json");
  is_read([&] { tokenize(weights::read_json(file.path())); });
}

void read_all(WeightSource& weights) {
  for (const auto& info : weights.tensors()) is_read([&] { weights.read(info.name); });
}

void read_safetensors(std::string_view bytes) {
  const InputFile file(bytes, ".safetensors");
  is_read([&] { read_all(*open_safetensors(file.path())); });
}

void read_gguf(std::string_view bytes) {
  const InputFile file(bytes, ".gguf");
  if (!is_read([&] { GgufFile gguf(file.path()); read_all(gguf); })) return;
  is_read([&] {
    const auto model = ModelFiles::open(file.path());
    read_all(*model.weights);
    tokenize(model.tokenizer);
  });
}

void read_split(const Split& split) {
  is_read([&] { split.verify(); });
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min<std::int64_t>(split.size(), 100)));
  std::iota(rows.begin(), rows.end(), 0);
  is_read([&] { split.read(rows); });
}

void read_hdf5(std::string_view bytes) {
  const InputFile file(bytes, ".h5");
  is_read([&] {
    const auto data = DataFile::open(file.path());
    for (const auto& name : data.splits()) read_split(data.split(name));
    is_read([&] { data_card(data); });
    is_read([&] { sample_lines(data, [](const auto& ids) { return std::to_string(ids.size()); }); });
  });
}

}  // namespace

const std::map<std::string, Reader>& readers() {
  static const std::map<std::string, Reader> all{
      {"json", read_json}, {"gguf", read_gguf}, {"safetensors", read_safetensors}, {"tokenizer", read_tokenizer}, {"hdf5", read_hdf5}};
  return all;
}

}  // namespace attune::fuzz
