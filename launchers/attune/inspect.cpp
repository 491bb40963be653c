// attune inspect: what a file is.
#include <ATen/ATen.h>
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/parameter.hpp>
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
#include "strategy/strategies.hpp"
#include "nn/unknown_values.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"
#include "train/memory.hpp"
#include "weights/describe.hpp"
#include "weights/model_files.hpp"
#include "weights/shapes.hpp"
#include "weights/tokenizer_files.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;
namespace fs = std::filesystem;

bool starts_with(const fs::path& path, std::string_view magic) {
  std::string head(magic.size(), '\0');
  std::ifstream(path, std::ios::binary)
      .read(head.data(), static_cast<std::streamsize>(head.size()));
  return head == magic;
}

/// How many virtual tokens a strategy puts before every sample.
std::int64_t virtual_tokens(Model& model) {
  for (const auto& child : model.module().named_children())
    if (child.key() == nn::virtual_tokens_name)
      if (const auto* tokens = dynamic_cast<const VirtualTokens*>(child.value().get()))
        return tokens->length();
  return 0;
}

/// A batch of the model's kind, with targets as its task has them. Samples leave room for virtual
/// tokens.
Batch planned_batch(Model& model, const nlohmann::json& config, std::int64_t samples,
                    std::int64_t length) {
  Batch batch;
  if (model.spec().vocabulary > 0) {
    length = std::min(length, model.spec().context - virtual_tokens(model));
    batch = pack(std::vector(static_cast<std::size_t>(samples), at::zeros({length}, at::kLong)));
  } else {
    const auto scale = nn::picture_scale(config, {0}, {1});
    batch.columns["pixels"] =
        at::zeros({samples, scale.channels, scale.size, scale.size}, at::kByte);
    for (std::int64_t sample = 1; sample <= samples; ++sample) batch.starts.push_back(sample);
  }
  batch.targets = at::zeros(
      {model.spec().task == Task::classification ? batch.samples() : batch.length()}, at::kLong);
  return batch;
}

/// What is planned of a model: how it is trained, and on which samples.
struct Training {
  const ModelFiles& files;
  const Registry& registry;
  std::shared_ptr<Optimizer> optimizer;
  std::int64_t samples;
  std::int64_t length;
};

using Names = std::vector<std::string>;

Strategies strategies_of(const Training& training, const Names& names) {
  std::vector<Strategies::Named> list;
  for (const auto& name : names) {
    const auto& entry = training.registry.find(Kind::strategy, name);
    list.push_back(
        {name, std::static_pointer_cast<Strategy>(entry.build(entry.defaults().get(), nullptr))});
  }
  return Strategies(std::move(list));
}

std::shared_ptr<Model> planned_model(const Training& training) {
  Shapes shapes(*training.files.weights);
  ModelContext context{training.files.config, shapes, {}};
  const auto& plugin = training.registry.find(Kind::model, training.files.config["model_type"]);
  return std::static_pointer_cast<Model>(plugin.build(plugin.defaults().get(), &context));
}

constexpr const char* table_row = "  {:<18}{:>14}{:>12}{:>12}{:>12}{:>13}{:>13}{:>12}\n";

/// One line of the table: what training holds with this strategy and its default options, counted
/// as `attune check` does for a step of several micro-batches on the host.
std::string memory_line(const Training& training, const std::string& name) {
  const auto model = planned_model(training);
  auto strategies = strategies_of(training, {name});
  strategies.prepare(*model);
  const ForwardContext context(
      planned_batch(*model, training.files.config, training.samples, training.length),
      Phase::training);
  const auto pass = nn::pass_memory(
      *model, [&] { return strategies.loss(*model, context).sum; }, nn::Gradients::held);
  std::int64_t trained = 0;
  for (const auto& [parameter, tensor] : trainable(*model)) trained += tensor.numel();
  const auto plan = train::plan_memory(*model, *training.optimizer);
  const auto activations = pass.most - std::min(pass.most, plan.gradients);
  const auto text = [](std::size_t bytes) { return human_bytes(static_cast<double>(bytes)); };
  return fmt::format(table_row, name, trained, text(plan.weights), text(plan.gradients),
                     text(plan.optimizer), text(plan.staging), text(activations),
                     text(plan.held() + activations));
}

/// Whether the model can be trained by this list, with default options.
bool can_train(const Training& training, const Names& names) {
  try {
    const auto model = planned_model(training);
    strategies_of(training, names).prepare(*model);
    return true;
  } catch (...) {
    return false;
  }
}

/// The strategy does not stand alone, but over one that trains.
bool can_train_over_another(const Training& training, const std::string& name) {
  const auto over = [&](const char* other) {
    return training.registry.has(Kind::strategy, other) && can_train(training, {other, name});
  };
  return over("lora") || over("full");
}

/// What training takes on one rank, for every strategy that trains something by itself; and of the
/// others why they do not.
std::string memory_table(const Training& training) {
  const nn::ParametersOn where(c10::kMeta);
  const nn::UnknownValues unknown;
  std::string text = fmt::format(table_row, "strategy", "trained", "weights", "gradients",
                                 "optimizer", "checkpoints", "activations", "together");
  std::string not_here;
  Names over_others;
  for (const auto& name : training.registry.names(Kind::strategy)) {
    try {
      text += memory_line(training, name);
    } catch (const std::exception& error) {
      if (can_train_over_another(training, name))
        over_others.push_back(name);
      else
        not_here += fmt::format("  {:<18}{}\n", name,
                                nn::asks_for_values(error)
                                    ? "needs the weights' values: use `attune check --measure`"
                                    : error.what());
    } catch (...) {  // of its constructor
      not_here += fmt::format("  {:<18}throws something that is not a std::exception\n", name);
    }
  }
  if (!over_others.empty())
    text += fmt::format(
        "combined with a strategy that trains parameters, such as 'lora', with additional memory "
        "(see `attune check`): {}\n",
        fmt::join(over_others, ", "));
  if (!not_here.empty()) text += "not with this model and default options:\n" + not_here;
  return text;
}

std::shared_ptr<Optimizer> make_optimizer(const Registry& registry, const std::string& name) {
  const auto& entry = registry.find(Kind::optimizer, name);
  return std::static_pointer_cast<Optimizer>(entry.build(entry.defaults().get(), nullptr));
}

void inspect_model(const fs::path& path, const std::string& optimizer, std::int64_t samples,
                   std::int64_t wanted_length) {
  const auto files = ModelFiles::open(path);
  std::cout << describe_model(files) << std::flush;
  Registry registry;
  load_plugins(registry, default_plugin_places());
  const auto names = registry.names(Kind::model);
  const auto type = files.config.value("model_type", "");
  if (std::ranges::find(names, type) == names.end()) {
    std::cout << fmt::format(
        "not supported: no installed plugin supports models of type '{}'; supported are: {}\n",
        type, fmt::join(names, ", "));
    return;
  }
  std::cout << "supported by the plugin '" << type << "'\n" << std::flush;
  const bool has_tokens = files.config.contains("vocab_size");
  const auto& key =
      files.config.contains("n_positions") ? "n_positions" : "max_position_embeddings";
  const auto length =
      has_tokens ? std::min(wanted_length, files.config.value(key, wanted_length)) : 1;
  std::cout << fmt::format(
                   "\nmemory on one rank in float32 with {}, {} {} per pass; checkpoints: the copy "
                   "that they are written from\n",
                   optimizer == "adamw" ? "AdamW" : fmt::format("the optimizer '{}'", optimizer),
                   samples, has_tokens ? fmt::format("samples of {} tokens", length) : "images")
            << memory_table(
                   {files, registry, make_optimizer(registry, optimizer), samples, length});
}

/// A place that may hold a tokenizer; null when there is none that can be used.
nlohmann::json tokenizer_at(const fs::path& path) {
  try {
    return open_tokenizer(path);
  } catch (const Error&) {
    return nullptr;
  }
}

/// Where the recipe's tokenizer may lie: the recipe's paths are relative to itself, and where it
/// lay is not noted; the data file's own place tells, unless it was moved. Else from the folder we
/// are in.
std::vector<fs::path> tokenizer_places(const DataFile& file) {
  toml::table recipe;
  try {
    recipe = toml::parse(file.recipe());
  } catch (const toml::parse_error&) {
    return {};  // not written by `attune prepare`
  }
  const fs::path named = recipe["tokenizer"].value_or(std::string());
  const fs::path output = recipe["output"].value_or(std::string());
  if (named.empty()) return {};
  if (named.is_absolute()) return {named};
  fs::path inner;
  for (const auto& part : named)
    if (part != "..") inner /= part;
  return {(file.path().parent_path() / named.lexically_relative(output.parent_path()))
              .lexically_normal(),
          named, inner};
}

Decode decoder(const nlohmann::json& tokenizer) {
  return [tokenizer = std::make_shared<Tokenizer>(tokenizer)](
             const std::vector<std::int32_t>& ids) { return tokenizer->decode(ids, false); };
}

/// Null, with a word on why, when the tokenizer that the data were made with is not found.
Decode find_decoder(const DataFile& file, const std::string& given) {
  if (file.tokenizer_sha256().empty()) return {};
  if (!given.empty()) {
    const auto tokenizer = open_tokenizer(given);
    if (tokenizer_sha256(tokenizer) != file.tokenizer_sha256())
      fail("{}: is not the tokenizer that {} was made with (its sha256 differs)", given,
           file.path().string());
    return decoder(tokenizer);
  }
  for (const auto& place : tokenizer_places(file)) {
    if (!fs::exists(place)) continue;
    const auto tokenizer = tokenizer_at(place);
    if (!tokenizer.is_null() && tokenizer_sha256(tokenizer) == file.tokenizer_sha256())
      return decoder(tokenizer);
  }
  std::cout << "texts are not shown: the tokenizer of the data is not at the path in the recipe; "
               "give it with --tokenizer PATH\n";
  return {};
}

void inspect_data(const fs::path& path, const std::string& tokenizer) {
  const auto file = DataFile::open(path);
  for (const auto& split : file.splits()) file.split(split).verify();
  std::cout << data_card(file) << "the content is intact: the SHA-256 of every split matches\n"
            << std::flush;
  const auto decode = find_decoder(file, tokenizer);
  std::cout << sample_lines(file, decode);
}

void inspect(const fs::path& path, const options::variables_map& values) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder", path.string());
  if (fs::is_directory(path) || starts_with(path, "GGUF")) {
    inspect_model(path, values["optimizer"].as<std::string>(),
                  values["micro-batch"].as<std::int64_t>(), values["length"].as<std::int64_t>());
  } else if (starts_with(path, "\x89HDF\r\n\x1a\n")) {
    inspect_data(path, values["tokenizer"].as<std::string>());
  } else {
    fail(
        "{}: is neither a model (a Hugging Face folder or a .gguf file) nor a data file made by "
        "`attune prepare`",
        path.string());
  }
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("file", options::value<std::string>()->required(),
                            "model or data file")(
      "tokenizer", options::value<std::string>()->default_value("", ""),
      "tokenizer that the data file was made with: a model folder, a tokenizer.json or a .gguf "
      "file")("micro-batch", options::value<std::int64_t>()->default_value(4),
              "samples per micro-batch in a model's memory estimate")(
      "length", options::value<std::int64_t>()->default_value(256),
      "sample length in tokens in a model's memory estimate")(
      "optimizer", options::value<std::string>()->default_value("adamw"),
      "optimizer in a model's memory estimate");
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

const Command inspect_command{
    "inspect", "MODEL|DATA.h5 [--tokenizer PATH] [--micro-batch N] [--length N] [--optimizer NAME]",
    "describes a model and its training memory, or describes and verifies a data file", run};

}  // namespace attune::program
