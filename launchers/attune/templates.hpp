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
set_tests_properties(@NAME@.loads PROPERTIES
  ENVIRONMENT ATTUNE_PLUGINS=$<TARGET_FILE:attune_plugin_@NAME@>)
)";

inline constexpr const char* readme = R"(# @NAME@

A @KIND@ for Attune. Build and test it (PREFIX is where Attune is installed):

    cmake -B build -DCMAKE_PREFIX_PATH=PREFIX
    cmake --build build -j
    ctest --test-dir build --output-on-failure

Use it from this folder:

    @COMMAND@

`ATTUNE_PLUGINS=build/plugins attune describe @NAME@` shows its options. `cmake --install build --prefix PREFIX`
installs it next to Attune's own plugins, where Attune finds it without ATTUNE_PLUGINS.
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
    R"(// What must hold of @NAME@, on a model of two layers. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <attune/linear.hpp>

#include <iostream>
#include <nlohmann/json.hpp>

namespace {

struct ToyModel final : attune::Model {
  struct Parts : torch::nn::Module {
    std::shared_ptr<attune::nn::Linear> norm =
        register_module("norm", std::make_shared<attune::nn::Linear>(4, 4, true));
    std::shared_ptr<attune::nn::Linear> head =
        register_module("head", std::make_shared<attune::nn::Linear>(4, 2, false));
  };
  ToyModel() : Model(attune::ModelSpec{.family = "toy", .width = 4, .depth = 1, .outputs = 2}) {}
  at::Tensor embed(attune::ForwardContext& context) override {
    return torch::ones({context.batch().length(), 4});
  }
  at::Tensor block(std::int64_t, const at::Tensor& h, attune::ForwardContext& context) override {
    return parts.norm->forward(h, context);
  }
  at::Tensor finish(const at::Tensor& h, attune::ForwardContext&) override { return h; }
  attune::nn::Linear& projection() override { return *parts.head; }
  torch::nn::Module& module() override { return parts; }
  nlohmann::json config() const override { return {}; }
  std::string block_name(std::int64_t) const override { return "norm."; }
  Parts parts;
};

}  // namespace

int main() {
  ToyModel model;
  attune::ModelView view(model);
  @TYPE@(@TYPE@::Options{.match = "norm.weight"}).prepare(view);
  const auto trained = view.trained();
  if (trained.size() == 1 && trained[0].first == "norm.weight") return 0;
  std::cerr << "expected norm.weight alone to be trained, but there are " << trained.size() << ":";
  for (const auto& [name, tensor] : trained) std::cerr << " " << name;
  std::cerr << "\n";
  return 1;
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
  registry.optimizer<@TYPE@>("@NAME@", "descent along the sign of the mean gradient (signSGD)");
}
)";

inline constexpr const char* optimizer_test =
    R"(// What must hold of @NAME@. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <iostream>

int main() {
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
    R"(// What must hold of @NAME@. ctest looks at the exit code.
#include "@NAME@.cpp"

#include <iostream>

int main() {
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

inline constexpr const char* run_file = R"(# attune train example.toml, in this folder
name = "@NAME@"
plugins = ["build/plugins"]

[model]
plugin = "llama"
path = "models/smollm2-135m"

[dataset]
plugin = "instruction"
path = "data/foldoc.h5"

[strategy]
plugin = "@STRATEGY@"

[train]
steps = 100
global_batch = 16
micro_batch = 4
learning_rate = 2e-4
@SECTION@)";

inline constexpr const char* recipe =
    R"(# ATTUNE_PLUGINS=build/plugins attune prepare example.toml, in this folder
name = "@NAME@"
kind = "@NAME@"
licence = "CC-BY-4.0"
output = "data/@NAME@.h5"
tokenizer = "models/smollm2-135m"

[[source]]
path = "texts.jsonl"

[split]
validation = 0.1
seed = 0
)";

}  // namespace attune::program::templates
