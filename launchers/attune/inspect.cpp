// attune inspect: what a file is.
#include <ATen/ATen.h>
#include <attune/nn.hpp>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "command.hpp"
#include "config/document.hpp"
#include "core/files.hpp"
#include "data/card.hpp"
#include "nn/activations.hpp"
#include "nn/strategies.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"
#include "weights/describe.hpp"
#include "weights/model_files.hpp"
#include "weights/tokenizer_files.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

bool starts_with(const fs::path& path, std::string_view magic) {
  std::string head(magic.size(), '\0');
  std::ifstream(path, std::ios::binary).read(head.data(), static_cast<std::streamsize>(head.size()));
  return head == magic;
}

/// The names and shapes of a model's weights with memory that nothing was written to: what is only counted takes none.
class Shapes final : public WeightSource {
 public:
  explicit Shapes(const WeightSource& of) : tensors_(of.tensors()) {}
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  at::Tensor read(const std::string& name) override {
    return at::empty(std::ranges::find(tensors_, name, &TensorInfo::name)->shape);
  }

 private:
  std::vector<TensorInfo> tensors_;
};

Batch trial_batch(const Model& model, const nlohmann::json& config, std::int64_t samples, std::int64_t length) {
  if (model.spec().vocabulary > 0) return pack(std::vector(static_cast<std::size_t>(samples), at::zeros({length}, at::kLong)));
  const auto scale = nn::picture_scale(config, {0}, {1});
  Batch batch;
  batch.columns["pixels"] = at::zeros({samples, scale.channels, scale.size, scale.size}, at::kByte);
  for (std::int64_t sample = 1; sample <= samples; ++sample) batch.starts.push_back(sample);
  return batch;
}

constexpr const char* table_row = "  {:<18}{:>14}{:>12}{:>12}{:>12}{:>13}{:>12}\n";

/// One line of the table: what training holds with this strategy and its default options. Error from a strategy that does not stand alone.
std::string memory_line(const ModelFiles& files, const Registry::Entry& plugin, const Registry::Entry& entry, std::int64_t samples, std::int64_t length) {
  Shapes shapes(*files.weights);
  ModelContext context{files.config, shapes, {}};
  const auto model = std::static_pointer_cast<Model>(plugin.build(plugin.defaults().get(), &context));
  Strategies strategies({{entry.name, std::static_pointer_cast<Strategy>(entry.build(entry.defaults().get(), nullptr))}});
  strategies.prepare(*model);
  std::size_t weights = 0, gradients = 0;
  std::int64_t trained = 0;
  for (const auto& [name, tensor] : nn::stored_tensors(model->module())) weights += tensor.nbytes();
  for (const auto& [name, linear] : nn::linears(model->module()))
    if (linear->packed()) weights += linear->packed()->bytes();
  for (const auto& [name, parameter] : trainable(*model)) gradients += parameter.nbytes(), trained += parameter.numel();
  model->module().train();
  const auto activations = nn::estimate_activations(*model, samples, length, [&](std::int64_t count, std::int64_t tokens) { return trial_batch(*model, files.config, count, tokens); });
  const auto text = [](std::size_t bytes) { return human_bytes(static_cast<double>(bytes)); };
  return fmt::format(table_row, entry.name, trained, text(weights), text(gradients), text(2 * gradients), text(activations), text(weights + 3 * gradients + activations));
}

/// What training takes on one rank, for every strategy that trains something by itself.
std::string memory_table(const ModelFiles& files, const Registry& registry, std::int64_t samples, std::int64_t length) {
  const auto& plugin = registry.find(Kind::model, files.config["model_type"]);
  std::string text = fmt::format(table_row, "strategy", "trained", "weights", "gradients", "optimizer", "activations", "together");
  std::vector<std::string> others;
  for (const auto& name : registry.names(Kind::strategy)) {
    try {
      text += memory_line(files, plugin, registry.find(Kind::strategy, name), samples, length);
    } catch (const Error&) {
      others.push_back(name);
    }
  }
  if (!others.empty()) text += fmt::format("  not with this model, or not by themselves and with their default options: {}\n", fmt::join(others, ", "));
  return text;
}

void inspect_model(const fs::path& path, std::int64_t samples, std::int64_t wanted_length) {
  const auto files = ModelFiles::open(path);
  std::cout << describe_model(files) << std::flush;
  Registry registry;
  load_plugins(registry, default_plugin_places());
  const auto names = registry.names(Kind::model);
  const auto type = files.config.value("model_type", "");
  if (std::ranges::find(names, type) == names.end()) {
    std::cout << fmt::format("not supported: no plugin here runs models of type '{}'; known are: {}\n", type, fmt::join(names, ", "));
    return;
  }
  std::cout << "supported by the plugin '" << type << "'\n" << std::flush;
  const bool has_tokens = files.config.contains("vocab_size");
  const auto& key = files.config.contains("n_positions") ? "n_positions" : "max_position_embeddings";
  const auto length = has_tokens ? std::min(wanted_length, files.config.value(key, wanted_length)) : 1;
  std::cout << fmt::format("\nmemory on one rank in float32 with AdamW, {} {} a forward pass; logits come on top, a few hundred rows at a time\n", samples,
                           has_tokens ? fmt::format("samples of {} tokens", length) : "pictures")
            << memory_table(files, registry, samples, length);
}

/// A place that may hold a tokenizer; null when there is none that can be used.
nlohmann::json tokenizer_at(const fs::path& path) {
  try {
    return open_tokenizer(path);
  } catch (const Error&) {
    return nullptr;
  }
}

/// Where the recipe's tokenizer may lie: the recipe's paths are relative to itself, and where it lay is not noted; the data file's own
/// place tells, unless it was moved. Else from the folder we are in.
std::vector<fs::path> tokenizer_places(const DataFile& file) {
  toml::table recipe;
  try {
    recipe = toml::parse(file.recipe());
  } catch (const toml::parse_error&) {
    return {};  // not written by `attune prepare`
  }
  const fs::path named = recipe["tokenizer"].value_or(std::string()), output = recipe["output"].value_or(std::string());
  if (named.empty()) return {};
  if (named.is_absolute()) return {named};
  fs::path inner;
  for (const auto& part : named)
    if (part != "..") inner /= part;
  return {(file.path().parent_path() / named.lexically_relative(output.parent_path())).lexically_normal(), named, inner};
}

Decode decoder(const nlohmann::json& tokenizer) {
  return [tokenizer = std::make_shared<Tokenizer>(tokenizer)](const std::vector<std::int32_t>& ids) { return tokenizer->decode(ids, false); };
}

/// Null, with a word on why, when the tokenizer that the data were made with is not found.
Decode find_decoder(const DataFile& file, const std::string& given) {
  if (file.tokenizer_sha256().empty()) return {};
  if (!given.empty()) {
    const auto tokenizer = open_tokenizer(given);
    if (tokenizer_sha256(tokenizer) != file.tokenizer_sha256()) fail("{}: is not the tokenizer that {} was made with (its sha256 differs)", given, file.path().string());
    return decoder(tokenizer);
  }
  for (const auto& place : tokenizer_places(file)) {
    if (!fs::exists(place)) continue;
    const auto tokenizer = tokenizer_at(place);
    if (!tokenizer.is_null() && tokenizer_sha256(tokenizer) == file.tokenizer_sha256()) return decoder(tokenizer);
  }
  std::cout << "texts are left out: the tokenizer that the data were made with is not where the recipe says; name it with --tokenizer PATH\n";
  return {};
}

void inspect_data(const fs::path& path, const std::string& tokenizer) {
  const auto file = DataFile::open(path);
  for (const auto& split : file.splits()) file.split(split).verify();
  std::cout << data_card(file) << "the content is what was written: every split's SHA-256 holds\n" << std::flush;
  const auto decode = find_decoder(file, tokenizer);
  std::cout << sample_lines(file, decode);
}

void inspect(const fs::path& path, const options::variables_map& values) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder", path.string());
  if (fs::is_directory(path) || starts_with(path, "GGUF")) {
    inspect_model(path, values["micro-batch"].as<std::int64_t>(), values["length"].as<std::int64_t>());
  } else if (starts_with(path, "\x89HDF\r\n\x1a\n")) {
    inspect_data(path, values["tokenizer"].as<std::string>());
  } else {
    fail("{}: is neither a model (a Hugging Face folder or a .gguf file) nor a data file made by `attune prepare`", path.string());
  }
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("file", options::value<std::string>()->required(), "model or data file")(
      "tokenizer", options::value<std::string>()->default_value("", ""), "what the data were made with: a model folder, a tokenizer.json or a .gguf")(
      "micro-batch", options::value<std::int64_t>()->default_value(4), "of a model: samples whose memory is told")("length", options::value<std::int64_t>()->default_value(256), "and their length in tokens");
  const auto values = parse(inspect_command, arguments, description, {{"file", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm&) {
    for (const char* name : {"micro-batch", "length"})
      if ((*values)[name].as<std::int64_t>() < 1) fail("--{} must be 1 or more", name);
    inspect((*values)["file"].as<std::string>(), *values);
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command inspect_command{"inspect", "MODEL|DATA.h5 [--tokenizer PATH] [--micro-batch N] [--length N]", "says what a model holds and takes to train, or what a data file holds, and verifies it", run};

}  // namespace attune::program
