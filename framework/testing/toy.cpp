#include <ATen/CPUGeneratorImpl.h>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <attune/testing.hpp>
#include <boost/dll/runtime_symbol_info.hpp>
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "registry/loader.hpp"
#include "weights/model_files.hpp"

namespace attune::testing {
namespace {

constexpr std::int64_t width = 8;
constexpr std::int64_t heads = 2;
constexpr std::int64_t inner = 12;
constexpr std::int64_t depth = 2;
constexpr std::int64_t vocabulary = 16;
constexpr std::int64_t context_length = 32;
constexpr std::int64_t labels = 3;

using nn::Linear;
using nn::RMSNorm;

std::shared_ptr<Linear> linear(std::int64_t in, std::int64_t out) {
  return std::make_shared<Linear>(in, out, false);
}

struct Attention : torch::nn::Module {
  Attention() {
    q_proj = register_module("q_proj", linear(width, width));
    k_proj = register_module("k_proj", linear(width, width));
    v_proj = register_module("v_proj", linear(width, width));
    o_proj = register_module("o_proj", linear(width, width));
  }
  at::Tensor forward(const at::Tensor& x, nn::RotaryEmbedding& rotary, ForwardContext& context) {
    const auto split = [](const at::Tensor& y) { return y.unflatten(1, {heads, width / heads}); };
    const auto& rotation = context.rotation(rotary);
    const auto q = nn::rotate(split(q_proj->forward(x, context)), rotation);
    const auto k = nn::rotate(split(k_proj->forward(x, context)), rotation);
    const auto v = split(v_proj->forward(x, context));
    const double scale = 1 / std::sqrt(static_cast<double>(width) / heads);
    const auto seen = nn::attention(q, k, v, context, {.scale = scale});
    return o_proj->forward(seen.flatten(1), context);
  }
  std::shared_ptr<Linear> q_proj;
  std::shared_ptr<Linear> k_proj;
  std::shared_ptr<Linear> v_proj;
  std::shared_ptr<Linear> o_proj;
};

struct Mlp : torch::nn::Module {
  Mlp() {
    gate_proj = register_module("gate_proj", linear(width, inner));
    up_proj = register_module("up_proj", linear(width, inner));
    down_proj = register_module("down_proj", linear(inner, width));
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    return down_proj->forward(
        nn::swiglu(gate_proj->forward(x, context), up_proj->forward(x, context)), context);
  }
  std::shared_ptr<Linear> gate_proj;
  std::shared_ptr<Linear> up_proj;
  std::shared_ptr<Linear> down_proj;
};

struct Block : torch::nn::Module {
  Block() {
    input_layernorm = register_module("input_layernorm", std::make_shared<RMSNorm>(width, 1e-5));
    self_attn = register_module("self_attn", std::make_shared<Attention>());
    post_attention_layernorm =
        register_module("post_attention_layernorm", std::make_shared<RMSNorm>(width, 1e-5));
    mlp = register_module("mlp", std::make_shared<Mlp>());
  }
  std::shared_ptr<RMSNorm> input_layernorm;
  std::shared_ptr<RMSNorm> post_attention_layernorm;
  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<Mlp> mlp;
};

struct Decoder : torch::nn::Module {
  Decoder() {
    embed_tokens =
        register_module("embed_tokens", std::make_shared<nn::Embedding>(vocabulary, width));
    auto list = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t i = 0; i < depth; ++i)
      list->push_back(blocks.emplace_back(std::make_shared<Block>()));
    norm = register_module("norm", std::make_shared<RMSNorm>(width, 1e-5));
  }
  std::shared_ptr<nn::Embedding> embed_tokens;
  std::vector<std::shared_ptr<Block>> blocks;
  std::shared_ptr<RMSNorm> norm;
};

struct Net : torch::nn::Module {
  Net(const std::string& head_name, std::int64_t outputs) {
    model = register_module("model", std::make_shared<Decoder>());
    head = register_module(head_name, linear(width, outputs));
  }
  std::shared_ptr<Decoder> model;
  std::shared_ptr<Linear> head;
};

class ToyModel final : public Model {
 public:
  explicit ToyModel(Task task)
      : Model({.family = "toy",
               .task = task,
               .width = width,
               .depth = depth,
               .vocabulary = vocabulary,
               .context = context_length,
               .outputs = is_decoder(task) ? vocabulary : labels,
               .key_heads = heads,
               .head_width = width / heads}),
        net_(is_decoder(task) ? "lm_head" : "score", spec().outputs),
        rotary_(width / heads, context_length, 10000) {}

  at::Tensor embed(ForwardContext& context) override {
    return net_.model->embed_tokens->forward(context.batch().tokens, context);
  }
  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    auto& layer = *net_.model->blocks.at(static_cast<std::size_t>(index));
    const at::Tensor attended =
        h + layer.self_attn->forward(layer.input_layernorm->forward(h), rotary_, context);
    return attended +
           layer.mlp->forward(layer.post_attention_layernorm->forward(attended), context);
  }
  /// A classifier's features are those of each sample's last token.
  at::Tensor finish(const at::Tensor& h, ForwardContext& context) override {
    const auto normed = net_.model->norm->forward(h);
    if (spec().task != Task::classification) return normed;
    const auto& starts = context.batch().starts;
    std::vector<std::int64_t> last;
    for (std::size_t i = 1; i < starts.size(); ++i) last.push_back(starts[i] - 1);
    return normed.index_select(0, torch::tensor(last));
  }
  Linear& projection() override { return *net_.head; }
  std::vector<std::string> head_modules() const override {
    return is_decoder(spec().task) ? std::vector<std::string>() : std::vector<std::string>{"score"};
  }
  LayerRoles layer_roles() const override {
    return {{"k_proj", "v_proj"}, "self_attn.o_proj", "mlp.down_proj"};
  }
  torch::nn::Module& module() override { return net_; }
  nlohmann::json config() const override {
    return {{"model_type", "toy"}, {"architectures", {"ToyModel"}}};
  }
  std::string block_name(std::int64_t index) const override {
    return fmt::format("model.layers.{}.", index);
  }

 private:
  static bool is_decoder(Task task) { return task == Task::next_token; }

  Net net_;
  nn::RotaryEmbedding rotary_;
};

/// Beside the program's, those of the installation that libattune.so belongs to: a test is a
/// program of its own.
std::vector<std::filesystem::path> plugin_places() {
  auto places = default_plugin_places();
  const auto installed = boost::dll::this_line_location().parent_path() / "attune" / "plugins";
  const auto is_there = [&](const auto& place) {
    std::error_code none;
    return std::filesystem::equivalent(place, installed.string(), none);
  };
  if (boost::filesystem::is_directory(installed) && std::ranges::none_of(places, is_there))
    places.emplace_back(installed.string());
  return places;
}

at::Generator generator_of(std::uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

at::Tensor targets_for(Task task, const std::vector<at::Tensor>& tokens,
                       const at::Generator& generator) {
  const auto samples = std::ssize(tokens);
  if (task == Task::classification)
    return at::randint(0, labels, {samples}, generator, at::TensorOptions().dtype(at::kLong));
  std::vector<at::Tensor> targets;
  for (const auto& sample : tokens)
    targets.push_back(task == Task::next_token ? next_token_targets(sample)
                                               : at::randint(0, labels, {sample.size(0)}, generator,
                                                             at::TensorOptions().dtype(at::kLong)));
  return torch::cat(targets);
}

}  // namespace

int run(const std::function<void()>& check) {
  try {
    check();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

std::shared_ptr<Model> toy_model(Task task, std::uint64_t seed) {
  if (task == Task::embedding) fail("there is no toy model that makes embeddings");
  const torch::NoGradGuard no_grad;
  auto model = std::make_shared<ToyModel>(task);
  const auto generator = generator_of(seed);
  for (auto& parameter : model->module().named_parameters()) {
    const bool is_norm = parameter.value().dim() == 1;
    parameter.value().normal_(is_norm ? 1 : 0, is_norm ? 0.1 : 0.3, generator);
  }
  model->module().eval();
  freeze(*model);
  return model;
}

Batch toy_batch(const Model& model, std::int64_t samples, std::uint64_t seed) {
  const auto generator = generator_of(seed + 1000);
  std::vector<at::Tensor> tokens;
  for (std::int64_t i = 0; i < samples; ++i)
    tokens.push_back(at::randint(0, std::min(vocabulary, model.spec().vocabulary),
                                 {3 + (i * 5 + 1) % 4}, generator,
                                 at::TensorOptions().dtype(at::kLong)));
  auto batch = pack(tokens);
  batch.targets = targets_for(model.spec().task, tokens, generator);
  const auto order = torch::arange(samples);
  batch.columns["chosen"] = order.remainder(2).eq(0);
  batch.columns["pair"] = order.floor_divide(2);
  for (std::int64_t i = 0; i < samples; ++i) batch.ids.push_back(i);
  return batch;
}

std::shared_ptr<Model> open_model(const std::filesystem::path& path) {
  Registry registry;
  load_plugins(registry, plugin_places());
  auto files = ModelFiles::open(path);
  const auto& entry = registry.find(Kind::model, files.config.value("model_type", ""));
  ModelContext context{files.config, *files.weights, {}};
  auto model = std::static_pointer_cast<Model>(entry.build(entry.defaults().get(), &context));
  model->module().eval();
  model->module().to(torch::kFloat32);
  return model;
}

}  // namespace attune::testing
