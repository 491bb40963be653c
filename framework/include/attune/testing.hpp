// Test support for plugins: a toy model and batch, model folders, and conformance checks for each
// kind of plugin. A complete test, after the includes of the plugin's source and of this header:
//
//   int main() {
//     return attune::testing::run([] { attune::testing::check_strategy<Sparse>(); });
//   }
//
// A failed check throws an Error that names the violated requirement. Checks run in one process on
// the CPU; they emulate data parallelism by splitting a step's batch in two.
#pragma once
#include <attune/api.hpp>
#include <attune/dataset.hpp>
#include <attune/model.hpp>
#include <attune/optimizer.hpp>
#include <attune/schedule.hpp>
#include <attune/strategy.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

ATTUNE_API_BEGIN
namespace attune::testing {

/// Runs the check and prints any exception. Returns the exit code for main.
int run(const std::function<void()>& check);

/// A frozen float32 model with two blocks and weights drawn from `seed`: a decoder with Llama's
/// layer names ("model.layers.0.self_attn.q_proj"), or a classifier with three labels.
std::shared_ptr<Model> toy_model(Task task = Task::next_token, std::uint64_t seed = 0);
/// A batch of samples of different lengths with tokens and targets for such a model, drawn from
/// `seed`. Chosen and rejected answers alternate, as in dataset 'preference', so preference losses
/// work as well.
Batch toy_batch(const Model& model, std::int64_t samples = 4, std::uint64_t seed = 0);

/// Opens a Hugging Face folder or a .gguf file with the plugin for its type, in float32 on the CPU,
/// frozen. Plugins are found in the same way as in the program. Error if the plugin refuses the
/// model.
std::shared_ptr<Model> open_model(const std::filesystem::path& path);

using MakeStrategy = std::function<std::shared_ptr<Strategy>()>;

/// Tests a strategy on the toy model with AdamW. `over`: the strategy that it extends, listed
/// before it, such as the adapter that a packed base needs. Without `over`, a strategy without
/// trainable parameters is listed after one that trains all parameters. Requirements:
/// - frozen parameters keep their bits, and trainable ones change;
/// - the loss of a batch is the sum of its samples' losses, so it is the same on any number of
/// ranks;
/// - two runs with the same seed are bitwise identical;
/// - a run resumed from a checkpoint is bitwise identical;
/// - state() returns live tensors;
/// - an exported adapter, loaded into a new run, gives the same outputs;
/// - a merged model gives the same outputs, unless merge throws an Error.
void check_strategy(const MakeStrategy& make, Task task = Task::next_token,
                    const MakeStrategy& over = {});
template <class T>
void check_strategy(const typename T::Options& options = {}, Task task = Task::next_token) {
  check_strategy([options] { return std::make_shared<T>(options); }, task);
}

/// Tests an optimizer. Requirements:
/// - an update changes parameters, and is a function of gradients, state and rates only;
/// - no state exists beyond state(): another instance continues with the same bits;
/// - bfloat16, scalars and parameters of any dimension are supported;
/// - if is_elementwise(), an update in pieces equals an update of the whole parameter.
void check_optimizer(const std::function<std::shared_ptr<Optimizer>()>& make);
template <class T>
void check_optimizer(const typename T::Options& options = {}) {
  check_optimizer([options] { return std::make_shared<T>(options); });
}

/// Tests that each factor is finite, at least 0, and a function of its arguments only.
void check_schedule(const std::function<std::shared_ptr<Schedule>()>& make);
template <class T>
void check_schedule(const typename T::Options& options = {}) {
  check_schedule([options] { return std::make_shared<T>(options); });
}

/// Tests a model. Requirements:
/// - a batch gives the same result as its samples one by one;
/// - gradients reach every parameter of the blocks;
/// - blocks() gives the same result when it starts from a cached hidden state;
/// - decoders are causal, and generation with and without a cache agree;
/// - the names of each block's parameters begin with its block_name.
void check_model(Model& model, const Batch& batch);

}  // namespace attune::testing
ATTUNE_API_END
