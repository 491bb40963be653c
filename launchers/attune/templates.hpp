// What `attune new` writes. @NAME@ is the plugin's name, @TYPE@ its struct, @KIND@ its kind. The
// files are in the program, so that it needs nothing beside itself; tests/plugins/install_test.py
// builds and runs what comes out.
#pragma once

namespace attune::program::templates {

inline constexpr const char* cmake = R"(cmake_minimum_required(VERSION 3.25)
project(@NAME@ LANGUAGES CXX)
find_package(Attune REQUIRED)

attune_add_plugin(@NAME@ @NAME@.cpp)

enable_testing()
add_executable(test_@NAME@ test_@NAME@.cpp)
target_link_libraries(test_@NAME@ PRIVATE Attune::attune)
add_test(NAME @NAME@.behaves COMMAND test_@NAME@)
add_test(NAME @NAME@.loads COMMAND Attune::program describe @NAME@)
set_tests_properties(@NAME@.behaves @NAME@.loads PROPERTIES
  ENVIRONMENT ATTUNE_PLUGINS=$<TARGET_FILE:attune_plugin_@NAME@>
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
)";

inline constexpr const char* readme = R"(# @NAME@

The sources of @KIND@ for Attune. Build and test it (PREFIX is where Attune is installed):

    cmake -B build -DCMAKE_PREFIX_PATH=PREFIX
    cmake --build build -j
    ctest --test-dir build --output-on-failure

Train with it, from this folder, on a tiny model and the texts in `example/`:

    @COMMAND@
    attune train example.toml

`ATTUNE_PLUGINS=build/plugins attune describe @NAME@` prints its options.
`cmake --install build --prefix PREFIX` installs it beside Attune's own plugins, where Attune finds
it without `plugins` in the run file.
)";

inline constexpr const char* strategy =
    R"(// @NAME@: trains the parameters whose names end in `match`, and freezes the rest.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

struct @TYPE@ final : attune::Strategy {
  struct Options {
    std::string match = "norm.weight";
    static void describe(attune::Schema<Options>& s) {
      s.key("match", &Options::match, "suffix of the names of the parameters to train");
    }
  };
  explicit @TYPE@(Options o) : options(std::move(o)) {}

  // What is trained. Overriding groups(), loss(), state(), export_adapter() or merge() of
  // attune/strategy.hpp changes more than that.
  void prepare(attune::ModelView& view) override {
    for (const auto& parameter : view.model().module().named_parameters())
      if (parameter.key().ends_with(options.match)) view.train(parameter.value());
  }

  Options options;
};

}  // namespace

ATTUNE_PLUGIN("@NAME@", "0.1.0", registry) {
  registry.strategy<@TYPE@>("@NAME@", "trains only the parameters whose names end in `match`");
}
)";

inline constexpr const char* strategy_test =
    R"(// What every strategy promises. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <attune/testing.hpp>

int main() {
  return attune::testing::run([] { attune::testing::check_strategy<@TYPE@>(); });
}
)";

inline constexpr const char* optimizer =
    R"(// @NAME@: gradient descent along the sign of each number (signSGD, Bernstein et al. 2018,
// arXiv:1802.04434, algorithm 1).
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

struct @TYPE@ final : attune::Optimizer {
  struct Options {
    double momentum = 0.9;
    static void describe(attune::Schema<Options>& s) {
      s.key("momentum", &Options::momentum, "decay rate of the mean of gradients").range(0, 1);
    }
  };
  explicit @TYPE@(Options o) : options(std::move(o)) {}

  // Each number is updated from its own gradient and state alone: ranks may share out a parameter.
  bool is_elementwise() const override { return true; }

  // The tensors that are kept for a parameter. Attune makes them, as zeros, plans their memory,
  // saves and restores them.
  std::vector<attune::StateSpec> state(const attune::ParameterSpec& parameter) const override {
    return {{"mean", parameter.sizes, parameter.dtype}};
  }

  // One update in place. The learning rate is the schedule's; the gradient counts times
  // rates.gradient_scale.
  void update(std::vector<attune::ParameterUpdate>& parameters,
              const attune::UpdateRates& rates) override {
    attune::scaled_gradients(parameters, rates);
    for (auto& each : parameters) {
      each.state[0].lerp_(each.gradient, 1 - options.momentum);
      each.parameter.mul_(1 - rates.learning_rate * rates.weight_decay);
      each.parameter.sub_(each.state[0].sign(), rates.learning_rate);
    }
  }

  Options options;
};

}  // namespace

ATTUNE_PLUGIN("@NAME@", "0.1.0", registry) {
  registry.optimizer<@TYPE@>("@NAME@", "descent along the sign of the mean gradient, signSGD");
}
)";

inline constexpr const char* optimizer_test =
    R"(// What every optimizer promises, and what this one does. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <attune/testing.hpp>
#include <iostream>

int main() {
  if (attune::testing::run([] { attune::testing::check_optimizer<@TYPE@>(); }) != 0) return 1;
  @TYPE@ optimizer(@TYPE@::Options{.momentum = 0.9});
  const auto parameter = torch::ones({2, 3});
  const auto gradient = torch::full({2, 3}, -4.0);
  const attune::ParameterSpec spec{"weight", {2, 3}};
  std::vector<at::Tensor> state;
  for (const auto& kept : optimizer.state(spec)) state.push_back(torch::zeros(kept.sizes));
  std::vector<attune::ParameterUpdate> updates{{spec, parameter, gradient, state}};
  optimizer.update(updates, {.learning_rate = 0.5, .gradient_scale = 0.25});
  if (parameter.equal(torch::full({2, 3}, 1.5)) &&
      torch::allclose(state[0], torch::full({2, 3}, -0.1)))
    return 0;
  std::cerr << "expected a step of 0.5 against the sign of the gradient, and a mean of -0.1; but "
               "there are\n"
            << parameter << state << "\n";
  return 1;
}
)";

inline constexpr const char* schedule =
    R"(// @NAME@: the learning rate halves at equal distances after the warm-up.
#include <attune/plugin.hpp>

#include <cmath>

namespace {

struct @TYPE@ final : attune::Schedule {
  struct Options {
    double halvings = 4;
    static void describe(attune::Schema<Options>& s) {
      s.key("halvings", &Options::halvings,
            "number of times the learning rate halves after the warm-up")
          .at_least(0);
    }
  };
  explicit @TYPE@(Options o) : options(std::move(o)) {}

  // Share of train.learning_rate, after the warm-up. The same for the same arguments: a resumed run
  // asks again.
  double factor(const attune::ScheduleStep& now) const override {
    return std::pow(0.5, options.halvings * now.progress());
  }

  Options options;
};

}  // namespace

ATTUNE_PLUGIN("@NAME@", "0.1.0", registry) {
  registry.schedule<@TYPE@>("@NAME@", "repeated halving of the learning rate");
}
)";

inline constexpr const char* schedule_test =
    R"(// What every schedule promises, and what this one does. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <attune/testing.hpp>
#include <iostream>

int main() {
  if (attune::testing::run([] { attune::testing::check_schedule<@TYPE@>(); }) != 0) return 1;
  const @TYPE@ schedule(@TYPE@::Options{.halvings = 2});
  const double first = schedule.factor({.step = 10, .steps = 110, .warmup = 10});
  const double middle = schedule.factor({.step = 60, .steps = 110, .warmup = 10});
  if (first == 1 && middle == 0.5) return 0;
  std::cerr << "expected 1 after the warm-up and 0.5 half way, but there are " << first << " and "
            << middle << "\n";
  return 1;
}
)";

inline constexpr const char* callback =
    R"(// @NAME@: ends the run when the training loss has fallen to `loss`.
#include <attune/plugin.hpp>

namespace {

struct @TYPE@ final : attune::Callback {
  struct Options {
    double loss = 1.0;
    static void describe(attune::Schema<Options>& s) {
      s.key("loss", &Options::loss, "end the run when the mean loss of a step is at most this")
          .above(0);
    }
  };
  explicit @TYPE@(Options o) : options(std::move(o)) {}

  // The events and their order are in attune/callback.hpp.
  void on(attune::Event event, const attune::Run& run, attune::Requests& requests) override {
    if (event == attune::Event::step_end && run.loss <= options.loss)
      requests.stop("the loss has fallen to " + std::to_string(run.loss));
  }

  Options options;
};

}  // namespace

ATTUNE_PLUGIN("@NAME@", "0.1.0", registry) {
  registry.callback<@TYPE@>("@NAME@", "ends the run at a given training loss");
}
)";

inline constexpr const char* callback_test =
    R"(// What must hold of @NAME@. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <iostream>

namespace {

bool stops_at(double loss, attune::Event event) {
  @TYPE@ callback(@TYPE@::Options{.loss = 1.0});
  attune::Run run;
  run.loss = loss;
  attune::Requests requests;
  callback.on(event, run, requests);
  return !requests.stop_reason().empty();
}

}  // namespace

int main() {
  if (!stops_at(1.5, attune::Event::step_end) && stops_at(1.0, attune::Event::step_end) &&
      !stops_at(0.0, attune::Event::step_begin))
    return 0;
  std::cerr
      << "expected a stop at the end of a step with a loss of 1.0 or less, and at no other time\n";
  return 1;
}
)";

inline constexpr const char* dataset =
    R"(// @NAME@: plain text; every token is predicted from those before it.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

struct @TYPE@ final : attune::Dataset {
  struct Options {
    std::int64_t max_length = 512;
    static void describe(attune::Schema<Options>& s) {
      s.key("max_length", &Options::max_length,
            "maximum length of a record in tokens; longer records are cut")
          .at_least(2);
    }
  };
  explicit @TYPE@(Options o) : options(std::move(o)) {}

  // At prepare time: a record becomes the columns of one sample.
  attune::Sample encode(const attune::Record& record,
                        const attune::EncodeContext& context) const override {
    auto tokens = context.tokenizer.encode(record.field("text"));
    if (tokens.size() < 2) throw attune::Rejected("fewer than two tokens");
    tokens.resize(std::min<std::size_t>(tokens.size(), options.max_length));
    return {{"tokens", torch::tensor(tokens, torch::kInt32)}};
  }

  // At train time: samples laid end to end. Row t predicts token t+1 of its sample; the last row of
  // a sample predicts nothing.
  attune::Batch collate(const std::vector<attune::Sample>& samples) const override {
    std::vector<at::Tensor> tokens;
    for (const auto& sample : samples) tokens.push_back(sample.at("tokens"));
    auto batch = attune::pack(tokens);
    batch.targets = batch.tokens.roll(-1);
    for (std::int64_t b = 0; b < batch.samples(); ++b)
      batch.targets[batch.starts[b + 1] - 1] = attune::ignored_target;
    return batch;
  }

  Options options;
};

}  // namespace

ATTUNE_PLUGIN("@NAME@", "0.1.0", registry) {
  registry.dataset<@TYPE@>("@NAME@", "plain text for next-token prediction");
}
)";

inline constexpr const char* dataset_test =
    R"(// What must hold of @NAME@. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <iostream>

int main() {
  const std::vector<attune::Sample> samples{{{"tokens", torch::tensor({5, 6, 7}, torch::kInt32)}},
                                            {{"tokens", torch::tensor({8, 9}, torch::kInt32)}}};
  const auto batch = @TYPE@({}).collate(samples);
  const auto expected = torch::tensor({6L, 7L, attune::ignored_target, 9L, attune::ignored_target});
  if (batch.starts == std::vector<std::int64_t>{0, 3, 5} && batch.targets.equal(expected)) return 0;
  std::cerr << "expected targets\n" << expected << "\nbut there are\n" << batch.targets << "\n";
  return 1;
}
)";

inline constexpr const char* model =
    R"(// @NAME@: a decoder with one attention and one gated layer in each block.
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

using attune::ForwardContext;
using attune::nn::Linear;
using attune::nn::RMSNorm;

// What the model takes from config.json.
struct Config {
  explicit Config(const nlohmann::json& json)
      : width(attune::nn::config_size(json, "hidden_size")),
        inner(attune::nn::config_size(json, "intermediate_size")),
        depth(attune::nn::config_size(json, "num_hidden_layers")),
        heads(attune::nn::config_size(json, "num_attention_heads")),
        key_heads(attune::nn::config_size(json, "num_key_value_heads")),
        vocabulary(attune::nn::config_size(json, "vocab_size")),
        context(attune::nn::config_size(json, "max_position_embeddings")),
        eps(attune::nn::config_value<double>(json, "rms_norm_eps", 1e-5)),
        rotary_base(attune::nn::config_value<double>(json, "rope_theta", 10000.0)) {
    // Refuse what the model does not do, instead of computing something else.
    const auto activation = attune::nn::config_value<std::string>(json, "hidden_act", "silu");
    if (activation != "silu")
      attune::fail("config.json has hidden_act \"{}\", but '@NAME@' supports silu only",
                   activation);
    if (!attune::nn::config_value<bool>(json, "tie_word_embeddings", true))
      attune::fail("config.json has tie_word_embeddings = false, which '@NAME@' does not support");
  }
  std::int64_t head_width() const { return width / heads; }

  std::int64_t width;
  std::int64_t inner;
  std::int64_t depth;
  std::int64_t heads;
  std::int64_t key_heads;
  std::int64_t vocabulary;
  std::int64_t context;
  double eps;
  double rotary_base;
};

std::shared_ptr<Linear> linear(std::int64_t in, std::int64_t out) {
  return std::make_shared<Linear>(in, out, false);
}

// The names under which layers are registered are those of the files.
struct Attention : torch::nn::Module {
  explicit Attention(const Config& c) : config(c) {
    const auto of_keys = c.key_heads * c.head_width();
    q_proj = register_module("q_proj", linear(c.width, c.width));
    k_proj = register_module("k_proj", linear(c.width, of_keys));
    v_proj = register_module("v_proj", linear(c.width, of_keys));
    o_proj = register_module("o_proj", linear(c.width, c.width));
  }
  at::Tensor forward(const at::Tensor& x, attune::nn::RotaryEmbedding& rotary,
                     ForwardContext& context) {
    const auto heads_of = [&](Linear& projection) {
      return projection.forward(x, context).unflatten(1, {-1, config.head_width()});
    };
    const auto& rotation = context.rotation(rotary);
    const auto q = attune::nn::rotate(heads_of(*q_proj), rotation);
    const auto k = attune::nn::rotate(heads_of(*k_proj), rotation);
    const double scale = 1 / std::sqrt(static_cast<double>(config.head_width()));
    const auto seen =
        attune::nn::attention(q, k, heads_of(*v_proj), context, {.scale = scale});
    return o_proj->forward(seen.flatten(1), context);
  }

  Config config;
  std::shared_ptr<Linear> q_proj;
  std::shared_ptr<Linear> k_proj;
  std::shared_ptr<Linear> v_proj;
  std::shared_ptr<Linear> o_proj;
};

struct Mlp : torch::nn::Module {
  explicit Mlp(const Config& c) {
    gate_proj = register_module("gate_proj", linear(c.width, c.inner));
    up_proj = register_module("up_proj", linear(c.width, c.inner));
    down_proj = register_module("down_proj", linear(c.inner, c.width));
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    return down_proj->forward(attune::nn::swiglu(gate_proj->forward(x, context),
                                                 up_proj->forward(x, context)),
                              context);
  }

  std::shared_ptr<Linear> gate_proj;
  std::shared_ptr<Linear> up_proj;
  std::shared_ptr<Linear> down_proj;
};

struct Block : torch::nn::Module {
  explicit Block(const Config& c) {
    input_layernorm = register_module("input_layernorm", std::make_shared<RMSNorm>(c.width, c.eps));
    self_attn = register_module("self_attn", std::make_shared<Attention>(c));
    post_attention_layernorm =
        register_module("post_attention_layernorm", std::make_shared<RMSNorm>(c.width, c.eps));
    mlp = register_module("mlp", std::make_shared<Mlp>(c));
  }

  std::shared_ptr<RMSNorm> input_layernorm;
  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<RMSNorm> post_attention_layernorm;
  std::shared_ptr<Mlp> mlp;
};

struct Decoder : torch::nn::Module {
  explicit Decoder(const Config& c) {
    embed_tokens = register_module(
        "embed_tokens", std::make_shared<attune::nn::Embedding>(c.vocabulary, c.width));
    auto list = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
    for (std::int64_t i = 0; i < c.depth; ++i)
      list->push_back(blocks.emplace_back(std::make_shared<Block>(c)));
    norm = register_module("norm", std::make_shared<RMSNorm>(c.width, c.eps));
  }

  std::shared_ptr<attune::nn::Embedding> embed_tokens;
  std::vector<std::shared_ptr<Block>> blocks;
  std::shared_ptr<RMSNorm> norm;
};

struct Net : torch::nn::Module {
  explicit Net(const Config& c) {
    model = register_module("model", std::make_shared<Decoder>(c));
    lm_head = register_module("lm_head", std::make_shared<Linear>(model->embed_tokens->weight));
  }

  std::shared_ptr<Decoder> model;
  std::shared_ptr<Linear> lm_head;  // tied to the embedding
};

class @TYPE@ final : public attune::Model {
 public:
  using Options = attune::NoOptions;
  @TYPE@(const Options&, attune::ModelContext& context)
      : @TYPE@(Config(context.config), context) {}

  at::Tensor embed(ForwardContext& context) override {
    return net_->model->embed_tokens->forward(context.batch().tokens, context);
  }
  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    auto& layer = *net_->model->blocks.at(static_cast<std::size_t>(index));
    const at::Tensor attended =
        h + layer.self_attn->forward(layer.input_layernorm->forward(h), rotary_, context);
    return attended +
           layer.mlp->forward(layer.post_attention_layernorm->forward(attended), context);
  }
  at::Tensor finish(const at::Tensor& h, ForwardContext&) override {
    return net_->model->norm->forward(h);
  }
  Linear& projection() override { return *net_->lm_head; }
  attune::LayerRoles layer_roles() const override {
    return {{"k_proj", "v_proj"}, "self_attn.o_proj", "mlp.down_proj"};
  }
  torch::nn::Module& module() override { return *net_; }
  nlohmann::json config() const override { return config_; }
  std::string block_name(std::int64_t index) const override {
    return "model.layers." + std::to_string(index) + ".";
  }

 private:
  @TYPE@(const Config& c, attune::ModelContext& context)
      : Model({.family = "@NAME@",
               .width = c.width,
               .depth = c.depth,
               .vocabulary = c.vocabulary,
               .context = c.context,
               .outputs = c.vocabulary,
               .key_heads = c.key_heads,
               .head_width = c.head_width()}),
        config_(context.config),
        net_(std::make_shared<Net>(c)),
        rotary_(c.head_width(), c.context, c.rotary_base) {
    attune::nn::load_parameters(*net_, context.weights);
  }

  nlohmann::json config_;
  std::shared_ptr<Net> net_;
  attune::nn::RotaryEmbedding rotary_;
};

}  // namespace

// The name is the model_type of the config.json files that it serves.
ATTUNE_PLUGIN("@NAME@", "0.1.0", registry) {
  registry.model<@TYPE@>("@NAME@", "decoder with attention and a gated layer in each block");
}
)";

inline constexpr const char* model_test =
    R"(// What every model promises, of the one in example/model. ctest looks at the exit code.
#include <attune/testing.hpp>

int main() {
  return attune::testing::run([] {
    const auto model = attune::testing::open_model("example/model");
    attune::testing::check_model(*model, attune::testing::toy_batch(*model));
  });
}
)";

inline constexpr const char* run_file =
    R"(# attune train example.toml, in this folder, once the data are prepared (README.md)
name = "@NAME@"
plugins = ["build/plugins"]

[model]
plugin = "@MODEL@"
path = "example/model"

[dataset]
plugin = "@DATASET@"
path = "example/texts.h5"

[strategy]
plugin = "@STRATEGY@"

[train]
steps = 20
global_batch = 8
micro_batch = 4
learning_rate = 1e-3
@SECTION@)";

}  // namespace attune::program::templates
