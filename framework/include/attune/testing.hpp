// For the tests of plugins: a toy model and batch, model folders, and checks of what every plugin
// of a kind promises. A whole test, behind the includes of the plugin's source and of this header:
//
//   int main() {
//     return attune::testing::run([] { attune::testing::check_strategy<Sparse>(); });
//   }
//
// A check throws an Error that names the promise that does not hold. All are in one process and on
// the CPU; what ranks do is done by hand: the batch of a step is cut in two.
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

/// Runs the check. What it throws is printed. Returns main's exit code.
int run(const std::function<void()>& check);

/// A decoder of two blocks in float32, with values drawn from `seed` and Llama's layer names
/// ("model.layers.0.self_attn.q_proj"); or a classifier of three labels. Frozen, as models come.
std::shared_ptr<Model> toy_model(Task task = Task::next_token, std::uint64_t seed = 0);
/// Samples of different lengths with tokens and targets for such a model, drawn from `seed`. For
/// losses over preferences each sample is followed by the one it is compared with, as the dataset
/// 'preference' gives them.
Batch toy_batch(const Model& model, std::int64_t samples = 4, std::uint64_t seed = 0);

/// The model of a Hugging Face folder or a .gguf file, by the plugin for its type, which is found
/// as the program finds it; in float32 on the CPU, frozen. Error: what the plugin refuses.
std::shared_ptr<Model> open_model(const std::filesystem::path& path);

using MakeStrategy = std::function<std::shared_ptr<Strategy>()>;

/// On the toy model, with AdamW; a strategy that trains nothing itself is listed after one that
/// trains all. It holds that
/// - what is not trained keeps its bits, and what is trained does not;
/// - the loss of a batch is the sum of its samples' losses, and so the same on any number of ranks;
/// - two runs with one seed have the same bits;
/// - a run that is resumed from what a checkpoint holds has the same bits;
/// - state() gives live tensors;
/// - an exported adapter, loaded into a new run, gives the same outputs;
/// - a model into which everything was merged gives the same outputs, unless merge refuses.
void check_strategy(const MakeStrategy& make, Task task = Task::next_token);
template <class T>
void check_strategy(const typename T::Options& options = {}, Task task = Task::next_token) {
  check_strategy([options] { return std::make_shared<T>(options); }, task);
}

/// It holds that
/// - parameters move, and only by what the gradients, the state and the rates say: twice the same;
/// - nothing is kept but what state() declares: another instance goes on with the same bits;
/// - it takes bfloat16, scalars, and parameters of any dimension;
/// - where is_elementwise(), a parameter in pieces is updated as a whole one.
void check_optimizer(const std::function<std::shared_ptr<Optimizer>()>& make);
template <class T>
void check_optimizer(const typename T::Options& options = {}) {
  check_optimizer([options] { return std::make_shared<T>(options); });
}

/// It holds that a factor is finite, is at least 0, and depends on its arguments alone.
void check_schedule(const std::function<std::shared_ptr<Schedule>()>& make);
template <class T>
void check_schedule(const typename T::Options& options = {}) {
  check_schedule([options] { return std::make_shared<T>(options); });
}

/// It holds that
/// - a batch gives what its samples give one by one;
/// - gradients reach every parameter of the blocks;
/// - blocks() from a hidden state of an earlier pass give the same;
/// - for decoders, a token sees nothing that comes after it, and generation with a cache gives
///   what it gives without;
/// - its parameters are below the block_name of their block.
void check_model(Model& model, const Batch& batch);

}  // namespace attune::testing
ATTUNE_API_END
