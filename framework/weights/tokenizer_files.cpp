#include "weights/tokenizer_files.hpp"

#include <attune/error.hpp>

#include <optional>
#include <vector>

#include "core/files.hpp"
#include "text/convert.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/special_tokens.hpp"
#include "weights/weight_files.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
using weights::read_json;
namespace {

json json_or_null(const fs::path& path) { return fs::exists(path) ? read_json(path) : json(); }

/// In the order of the file, in which tokens get their ids.
text::OrderedJson read_ordered(const fs::path& path) {
  if (!fs::exists(path)) return nullptr;
  read_json(path);  // whose errors say where
  return text::OrderedJson::parse(read_text(path));
}

/// Nothing when there is no such file.
std::optional<std::string> text_of_file(const fs::path& path) {
  if (!fs::is_regular_file(path)) return std::nullopt;
  if (path.extension() == ".json") read_json(path);  // whose errors say where
  return path.extension() == ".txt" ? read_lines(path) : read_text(path);
}

json open_gguf_tokenizer(const fs::path& path) {
  return text::tokenizer_json_from_gguf(gguf_metadata(path));
}

}  // namespace

text::FolderTokenizer read_tokenizer(const fs::path& folder) {
  text::TokenizerFolder files;
  files.config = json_or_null(folder / "config.json");
  files.tokenizer_json = json_or_null(folder / "tokenizer.json");
  files.settings = {read_ordered(folder / "tokenizer_config.json"),
                    read_ordered(folder / "special_tokens_map.json"),
                    read_ordered(folder / "added_tokens.json")};
  files.read = [&](const std::string& name) { return text_of_file(folder / name); };
  try {
    return text::read_tokenizer_folder(std::move(files));
  } catch (const Error& error) {
    fail("{}: {}", folder.string(), error.what());
  } catch (const json::exception& error) {
    fail(
        "{}: its tokenizer's files do not have the form that `tokenizers` writes ({}); save them "
        "again, or use those that came with the model",
        folder.string(), error.what());
  }
}

json open_tokenizer(const fs::path& path) {
  if (!fs::exists(path))
    fail(
        "{}: there is no such file or folder; expected a model folder, a tokenizer.json or a .gguf "
        "file",
        path.string());
  if (path.extension() == ".json") return read_json(path);
  if (!fs::is_directory(path)) return open_gguf_tokenizer(path);
  if (auto tokenizer = read_tokenizer(path).json; !tokenizer.is_null()) return tokenizer;
  if (weights::holds_gguf(path)) return open_gguf_tokenizer(weights::only_gguf(path));
  const auto snapshot = weights::cached_snapshot(path);
  fail("{}: there is no tokenizer in it{}", path.string(),
       snapshot.empty() ? "; set tokenizer to a place that has one" : snapshot);
}

std::map<std::string, std::string> special_tokens_of(const fs::path& place) {
  if (place.extension() == ".json") return {};
  if (!fs::is_directory(place)) return special_tokens_of_gguf(gguf_metadata(place));
  auto tokenizer = read_tokenizer(place);
  if (tokenizer.json.is_null() && weights::holds_gguf(place))
    return special_tokens_of_gguf(gguf_metadata(weights::only_gguf(place)));
  return std::move(tokenizer.special_tokens);
}

}  // namespace attune
