#include "testing/toy_run.hpp"

#include <attune/adamw.hpp>
#include <attune/error.hpp>
#include <attune/schedule.hpp>
#include <torch/torch.h>

#include <cstring>

#include "train/memory.hpp"

namespace attune::testing {
namespace {

constexpr std::int64_t seed = 7;
constexpr std::int64_t samples_of_step = 4;
constexpr double learning_rate = 1e-2;

/// What a loss is put over when it trains nothing itself.
struct TrainsAll final : Strategy {
  void prepare(ModelView& view) override { view.train(view.model().module()); }
};

}  // namespace

class ToyModels final : public RunModels {
 public:
  explicit ToyModels(Task task) : task_(task) {}
  Tokenizer tokenizer() override { fail("the toy model of a check has no tokenizer"); }
  std::shared_ptr<Model> open(const std::string&) override { return toy_model(task_, 1); }
  std::string sha256(const std::string&) override { return "toy"; }

 private:
  Task task_;
};

class ToyData final : public RunData {
 public:
  explicit ToyData(const Model& model) : model_(model) {}
  std::vector<double> class_weights() override {
    const auto classes = model_.spec().task == Task::next_token ? 0 : model_.spec().outputs;
    return std::vector<double>(static_cast<std::size_t>(classes), 1.0);
  }
  void for_each_batch(const std::string&, std::int64_t, const Work& work) override {
    for_each_own_batch(work);
  }
  /// Every one that a step of a check may take.
  void for_each_own_batch(const Work& work) override {
    for (std::uint64_t step = 0; step < 8; ++step)
      work(ForwardContext(toy_batch(model_, samples_of_step, step)));
  }

 private:
  const Model& model_;
};

class NoFiles final : public TensorFiles {
 public:
  Tensors read_or_make(const std::string&, const std::map<std::string, std::string>&,
                       const std::function<Tensors()>& make) override {
    return make();
  }
};

namespace {

std::vector<Strategies::Named> list_of(const ToyPlan& plan) {
  if (plan.over) return {{"extended", plan.over()}, {"checked", plan.make()}};
  const auto model = toy_model(plan.task);
  ModelView view(*model);
  plan.make()->prepare(view);
  check(trainable(*model).size() == view.trained().size(),
        "prepare() selects what is trained by ModelView::train alone, not by requires_grad");
  std::vector<Strategies::Named> list;
  if (view.trained().empty()) list.push_back({"everything", std::make_shared<TrainsAll>()});
  list.push_back({"checked", plan.make()});
  return list;
}

std::vector<NamedTensor> copied(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> copies;
  for (const auto& [name, tensor] : tensors) copies.emplace_back(name, tensor.detach().clone());
  return copies;
}

void copy_into(const std::vector<NamedTensor>& live, const std::vector<NamedTensor>& saved) {
  const torch::NoGradGuard no_grad;
  check(live.size() == saved.size(), "state() gives the same tensors in every run");
  for (std::size_t i = 0; i < live.size(); ++i) {
    const bool fits =
        live[i].first == saved[i].first && live[i].second.sizes() == saved[i].second.sizes();
    check(fits, fmt::format("state() gives '{}' with the same name and shape in every run",
                            saved[i].first));
    at::Tensor(live[i].second).copy_(saved[i].second);
  }
}

}  // namespace

Batch part_of(const Batch& batch, std::int64_t first, std::int64_t count) {
  const auto begin = batch.starts[static_cast<std::size_t>(first)];
  const auto end = batch.starts[static_cast<std::size_t>(first + count)];
  Batch part;
  part.tokens = batch.tokens.slice(0, begin, end);
  part.positions = batch.positions.slice(0, begin, end);
  part.starts.clear();
  for (auto i = first; i <= first + count; ++i)
    part.starts.push_back(batch.starts[static_cast<std::size_t>(i)] - begin);
  const bool is_by_row = batch.targets.size(0) == batch.length();
  part.targets =
      is_by_row ? batch.targets.slice(0, begin, end) : batch.targets.slice(0, first, first + count);
  for (const auto& [name, column] : batch.columns)
    part.columns[name] = column.slice(0, first, first + count);
  if (part.columns.contains("pair")) part.columns["pair"] = part.columns["pair"] - first / 2;
  part.ids.assign(batch.ids.begin() + first, batch.ids.begin() + first + count);
  return part;
}

void check(bool holds, const std::string& promise) {
  if (!holds) fail("this does not hold: {}", promise);
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const auto x = a.detach().contiguous();
  const auto y = b.detach().contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

bool are_near(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() &&
         torch::allclose(a.to(at::kDouble), b.to(at::kDouble), 1e-4, 1e-5);
}

struct ToyRun::Parts {
  Parts(Model& model, Task task) : models(task), data(model) {}
  ToyModels models;
  ToyData data;
  NoFiles files;
  RunContext run{.comm = {},
                 .seed = seed,
                 .steps = 4,
                 .directory = {},
                 .trained = {},
                 .models = models,
                 .data = data,
                 .files = files};
};

ToyRun::ToyRun(const ToyPlan& plan)
    : model_(toy_model(plan.task)),
      strategies_(list_of(plan)),
      parts_(std::make_shared<Parts>(*model_, plan.task)) {
  torch::manual_seed(seed);  // new adapters
  strategies_.prepare(*model_);
  strategies_.begin(*model_, parts_->run);
  updater_ = std::make_unique<train::Updater>(std::make_shared<AdamW>(AdamW::Options{}),
                                              strategies_.groups(*model_), 0.01,
                                              train::block_prefixes(*model_));
}

void ToyRun::step(std::int64_t step, std::int64_t parts) {
  if (step == 0) strategies_.on_epoch(*model_, 0, 0);
  strategies_.on_step(*model_, step);
  const auto batch = toy_batch(*model_, samples_of_step, static_cast<std::uint64_t>(step));
  const auto count = samples_of_step / parts;
  std::int64_t targets = 0;
  for (std::int64_t part = 0; part < parts; ++part) {
    torch::manual_seed(seed * 1000 + step * 100 + part);
    const ForwardContext context(
        part_of(batch, part * count, count), Phase::training,
        {static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(step)});
    const auto loss = strategies_.loss(*model_, context);
    loss.sum.backward();
    targets += loss.count;
  }
  check(targets > 0, "the loss counts the targets that it sums over");
  const double scale = 1.0 / static_cast<double>(targets);
  strategies_.on_gradients(*model_, step, scale);
  updater_->step(updater_->gradients(), learning_rate, scale);
  train::drop_gradients(updater_->parameters());
  strategies_.after_step(*model_, step);
}

ToyRun::State ToyRun::state() {
  State state{copied(strategies_.state(*model_)), {}, {}};
  for (const auto& kept : updater_->state())
    state.optimizer.emplace_back(kept.name, kept.tensor.detach().clone());
  for (const auto& [name, parameter] : strategies_.trained())
    state.trained.push_back(parameter.requires_grad());
  return state;
}

void ToyRun::restore(const State& state, std::int64_t step) {
  std::vector<NamedTensor> of_optimizer;
  for (const auto& kept : updater_->state()) of_optimizer.emplace_back(kept.name, kept.tensor);
  copy_into(of_optimizer, state.optimizer);
  copy_into(strategies_.state(*model_), state.weights);
  strategies_.on_epoch(*model_, 0, step);
  copy_into(strategies_.state(*model_), state.weights);
  const auto& trained = strategies_.trained();
  for (std::size_t i = 0; i < trained.size(); ++i)
    at::Tensor(trained[i].second).set_requires_grad(state.trained[i]);
}

at::Tensor ToyRun::outputs() {
  const torch::NoGradGuard no_grad;
  return model_->logits(toy_batch(*model_, samples_of_step, 99));
}

}  // namespace attune::testing
