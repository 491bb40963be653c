#include "readers.hpp"

#include <attune/built_for.hpp>
#include <attune/error.hpp>
#include <attune/metrics_log.hpp>
#include <attune/tokenizer.hpp>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/card.hpp"
#include "data/store.hpp"
#include "prepare/source.hpp"
#include "registry/built_for.hpp"
#include "registry/elf.hpp"
#include "run_directory/evaluation.hpp"
#include "run_directory/places.hpp"
#include "run_directory/progress.hpp"
#include "run_directory/record.hpp"
#include "weights/gguf.hpp"
#include "weights/json_file.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"
#include "weights/tokenizer_files.hpp"

namespace attune::fuzz {
namespace {
namespace fs = std::filesystem;

/// The bytes as a file, in memory where there is a place for it; gone with this object.
class InputFile {
 public:
  InputFile(std::string_view bytes, const char* ending)
      : path_(folder() / ("attune-fuzz-" + std::to_string(::getpid()) + ending)) {
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  ~InputFile() { fs::remove(path_); }
  const fs::path& path() const { return path_; }

 private:
  static fs::path folder() {
    return fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
  }
  fs::path path_;
};

/// A folder of a tokenizer, one of whose files has these bytes.
class InputFolder {
 public:
  InputFolder(std::string_view bytes, const char* name,
              const std::map<std::string, std::string>& others) {
    fs::create_directory(path_);
    write(name, bytes);
    for (const auto& [other, content] : others) write(other, content);
  }
  ~InputFolder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  void write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  fs::path path_ = (fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) /
                   ("attune-fuzz-folder-" + std::to_string(::getpid()));
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

void read_records(const fs::path& path, const std::string& format, const std::string& layout,
                  const std::string& on_error) {
  SourceOptions options;
  options.path = path.string();
  options.format = format;
  options.layout = layout;
  options.on_error = on_error;
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
  for (const char* text : {"",
                           "ab a<s> \u00e9 12\xFF"
                           "b-b",
                           "aaaa  bbbb\n", "\u1e9b\u0323 \u4e2d\u6587 1234567"})
    is_read([&] { tokenizer.decode(tokenizer.encode_with_spans(text).ids, false); });
}

void read_tokenizer(std::string_view bytes) {
  const InputFile file(bytes, ".json");
  is_read([&] { tokenize(weights::read_json(file.path())); });
}

void read_folder(std::string_view bytes, const char* name,
                 const std::map<std::string, std::string>& others) {
  const InputFolder folder(bytes, name, others);
  is_read([&] { tokenize(open_tokenizer(folder.path())); });
}

void read_sentencepiece(std::string_view bytes) {
  for (const char* type : {"{}", R"({"tokenizer_class": "LlamaTokenizer"})",
                           R"({"tokenizer_class": "XLMRobertaTokenizer", "add_bos_token": true})"})
    read_folder(bytes, "tokenizer.model", {{"tokenizer_config.json", type}});
}

void read_tekken(std::string_view bytes) { read_folder(bytes, "tekken.json", {}); }

void read_tiktoken(std::string_view bytes) {
  read_folder(
      bytes, "tiktoken.model",
      {{"tokenizer_config.json", R"({"added_tokens_decoder": {"9": {"content": "<s>"}}})"}});
}

void read_merges(std::string_view bytes) {
  read_folder(bytes, "merges.txt",
              {{"tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})"},
               {"vocab.json", R"({"a": 0, "b": 1, "ab": 2, "aab": 3})"}});
}

void read_vocab_txt(std::string_view bytes) { read_folder(bytes, "vocab.txt", {}); }

/// Each of the files that hold settings, beside a vocabulary.
void read_tokenizer_config(std::string_view bytes) {
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"})
    read_folder(bytes, name, {{"vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n"}});
}

/// A model's chat template, rendered for a conversation that has all parts.
void read_chat_template(std::string_view bytes) {
  static const Tokenizer tokenizer(nlohmann::json::parse(
      R"({"model": {"type": "BPE", "byte_fallback": true, "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"]}})"));
  static const std::vector<Message> messages{
      {"system", "a"},
      {"user", "ab"},
      {"assistant", "b",
       R"({"tool_calls": [{"type": "function", "function": {"name": "b", "arguments": {"a": [1, 2.5, null]}}}]})"},
      {"tool", "a", R"({"name": "b"})"},
      {"assistant", "ab \u00e9"}};
  constexpr std::string_view tools =
      R"([{"type": "function", "function": {"name": "b", "description": "a", "parameters": {"type": "object", "properties": {}}}}])";
  const ChatSource source{.jinja = std::string(bytes),
                          .tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}}};
  const auto form = ChatTemplate::from_jinja(source);
  is_read([&] { form.encode(messages, tokenizer, tools); });
  is_read([&] { form.prompt({{"user", "ab"}}, tokenizer); });
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
  is_read([&] { tokenize(open_tokenizer(file.path())); });
  if (!is_read([&] {
        GgufFile gguf(file.path());
        read_all(gguf);
      }))
    return;
  is_read([&] {
    const auto model = ModelFiles::open(file.path());
    read_all(*model.weights);
    tokenize(model.tokenizer);
  });
}

void read_split(const Split& split) {
  is_read([&] { split.verify(); });
  std::vector<std::int64_t> rows(
      static_cast<std::size_t>(std::min<std::int64_t>(split.size(), 100)));
  std::iota(rows.begin(), rows.end(), 0);
  is_read([&] { split.read(rows); });
}

void read_hdf5(std::string_view bytes) {
  const InputFile file(bytes, ".h5");
  is_read([&] {
    const auto data = DataFile::open(file.path());
    for (const auto& name : data.splits()) read_split(data.split(name));
    is_read([&] { data_card(data); });
    is_read(
        [&] { sample_lines(data, [](const auto& ids) { return std::to_string(ids.size()); }); });
  });
}

/// A library that claims to be a plugin. It is never opened here.
void read_plugin(std::string_view bytes) {
  const InputFile file(bytes, ".so");
  is_read([&] { registry::exports_symbol(file.path(), "attune_plugin"); });
  is_read([&] {
    const auto note = registry::read_note(file.path(), ATTUNE_NOTE_OWNER, ATTUNE_NOTE_TYPE);
    if (note) registry::mismatches(*note);
  });
}

/// Each of the files that status, sweeps and resumed runs read. Progress is never an error,
/// whatever the files hold.
void read_run_directory(std::string_view bytes) {
  namespace run = run_directory;
  for (const char* name : {run::names::metrics, run::names::record, run::names::not_finite,
                           run::names::jobs, "lock.1"}) {
    const InputFolder folder(bytes, name, {});
    run::read_whole_progress(folder.path());
    is_read([&] { run::check_can_go_on(folder.path()); });
    is_read([&] { run::is_finished(folder.path()); });
    is_read([&] { run::read_recorded_inputs(run::record_file(folder.path())); });
  }
  const InputFolder evaluated(bytes, run::names::evaluation, {});
  is_read([&] { run::read_evaluation(evaluated.path()); });
  const InputFolder resumed(bytes, run::names::metrics, {});
  is_read([&] { MetricsLog(resumed.path(), bytes.size()).write(Event::run_begin, Run{}); });
}

}  // namespace

const std::map<std::string, Reader>& readers() {
  static const std::map<std::string, Reader> all{{"json", read_json},
                                                 {"gguf", read_gguf},
                                                 {"safetensors", read_safetensors},
                                                 {"tokenizer", read_tokenizer},
                                                 {"hdf5", read_hdf5},
                                                 {"sentencepiece", read_sentencepiece},
                                                 {"tekken", read_tekken},
                                                 {"tiktoken", read_tiktoken},
                                                 {"merges", read_merges},
                                                 {"vocab_txt", read_vocab_txt},
                                                 {"tokenizer_config", read_tokenizer_config},
                                                 {"chat_template", read_chat_template},
                                                 {"run_directory", read_run_directory},
                                                 {"plugin", read_plugin}};
  return all;
}

}  // namespace attune::fuzz
