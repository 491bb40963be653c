#include "strategy/strategies.hpp"

#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <map>
#include <ranges>
#include <set>

#include "core/names.hpp"
#include "core/out_of_memory.hpp"
#include "core/plugin_call.hpp"
#include "device/device.hpp"
#include "strategy/inputs.hpp"
#include "strategy/peft_config.hpp"
#include "strategy/seeding.hpp"
#include "nn/unknown_values.hpp"

namespace attune {
namespace {

/// What LibTorch refuses, in its first line.
std::string refusal(const c10::Error& error) {
  const std::string_view text = error.what_without_backtrace();
  return std::string(text.substr(0, text.find('\n')));
}

bool is_the_frameworks(const std::exception& error) {
  return nn::asks_for_values(error) || is_out_of_memory(error) ||
         device::is_not_deterministic(error);
}

std::string named(const std::string& strategy) { return fmt::format("strategy '{}'", strategy); }

GradientHook* gradient_hook(const Strategies::Named& one) {
  return dynamic_cast<GradientHook*>(one.strategy.get());
}

std::optional<std::int64_t> step_of(const ForwardContext& context) {
  return context.is_training() ? std::optional(static_cast<std::int64_t>(context.key().step))
                               : std::nullopt;
}

/// A function of a strategy's.
template <class Work>
auto in_strategy(const std::string& name, const char* function, std::optional<std::int64_t> step,
                 Work&& work) {
  return call_plugin({named(name), function, step}, work, is_the_frameworks);
}

/// Work on model and data in whose combination LibTorch may find something that does not fit, in
/// words that are not the user's: who (a strategy or the loss) and what for are said with them.
template <class Work>
auto with_misfit_told(const std::string& who, const std::string& what, const Model& model,
                      Work&& work) {
  try {
    return work();
  } catch (const c10::Error& error) {
    if (is_the_frameworks(error)) throw;
    fail(
        "{} cannot {} of this {} model with these options and data (LibTorch error: \"{}\"); "
        "choose data or strategies that fit the model",
        who, what, model.spec().family, refusal(error));
  }
}

/// What a checkpoint is restored into.
void check_live(const std::string& strategy, const std::vector<NamedTensor>& once,
                const std::vector<NamedTensor>& again) {
  for (std::size_t i = 0; i < once.size(); ++i)
    if (i >= again.size() || !once[i].second.is_alias_of(again[i].second))
      throw Fault(
          fmt::format("{} returns a copy of '{}' from state(): return the tensor itself, so that a "
                      "checkpoint can be restored into it",
                      named(strategy), once[i].first));
}

/// Of one micro-batch.
void check_loss(const std::string& strategy, const Loss& loss, const ForwardContext& context) {
  if (!loss.sum.defined() || loss.sum.numel() != 1)
    throw Fault(fmt::format("{} returns a loss of {}: it must be a sum, a single number",
                            named(strategy),
                            loss.sum.defined() ? c10::str(loss.sum.sizes()) : "no tensor"));
  if (context.is_training() && at::GradMode::is_enabled() && loss.count > 0 &&
      !loss.sum.requires_grad())
    throw Fault(
        fmt::format("{} returns a loss without a gradient: it was detached, computed under a "
                    "NoGradGuard, or does not depend on trainable parameters",
                    named(strategy)));
}

/// To a model of pictures each is a sample of length 1.
bool takes_pictures(const ModelSpec& spec) { return spec.vocabulary == 0 && spec.context == 1; }

/// The names that PEFT reads too: of its older versions, and of an adapter that was saved with its
/// name.
std::string current_name(std::string name) {
  for (const auto& [old, now] :
       {std::pair(".lora_A.default.weight", ".lora_A.weight"),
        std::pair(".lora_B.default.weight", ".lora_B.weight"),
        std::pair(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector"),
        std::pair(".lora_magnitude_vector.weight", ".lora_magnitude_vector")})
    if (name.ends_with(old))
      name.replace(name.size() - std::string_view(old).size(), std::string::npos, now);
  return name;
}

/// VeRA's projection, which an adapter may leave to its seed.
bool is_drawn_again(const std::string& name) {
  return name == "base_model.vera_A" || name == "base_model.vera_B";
}

/// Two names of one parameter (tied embeddings) have one value here, as they have to have there.
void check_tied(const std::vector<NamedTensor>& ours,
                const std::map<std::string, at::Tensor>& theirs, const std::string& from) {
  std::map<const void*, std::string> first;
  for (const auto& [name, tensor] : ours) {
    const auto [other, is_new] = first.emplace(tensor.unsafeGetTensorImpl(), name);
    if (is_new || at::equal(theirs.at(name), theirs.at(other->second))) continue;
    fail(
        "{}: '{}' and '{}' differ, but this model ties them to one tensor: merge the adapter in "
        "PEFT, and start from the merged model",
        from, other->second, name);
  }
}

/// PEFT copies an embedding that modules_to_save names, and a head that is tied to it keeps the old
/// values: here both are one tensor.
[[noreturn]] void refuse_without(const NamedTensor& missing, const std::vector<NamedTensor>& ours,
                                 const std::map<std::string, at::Tensor>& theirs,
                                 const std::string& from) {
  for (const auto& [name, tensor] : ours)
    if (theirs.contains(name) && tensor.is_same(missing.second))
      fail(
          "{}: modules_to_save holds '{}' without '{}', which is tied to it in this model and "
          "stays as it was in PEFT: save both in PEFT, or merge the adapter and start from the "
          "merged model",
          from, name, missing.first);
  fail("{}: lacks '{}', which this run's adapter has: it is for another model or other targets",
       from, missing.first);
}

/// A tensor that the run's adapter does not have.
[[noreturn]] void refuse_tensor(const std::string& name, const std::string& from) {
  const auto holds = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (holds("lora_embedding_"))
    fail(
        "{}: contains '{}', a low-rank delta of an embedding, which 'lora' does not support: merge "
        "the adapter in PEFT, and start from the merged model",
        from, name);
  if (!holds("lora_") && name.ends_with(".weight") &&
      (holds("embed") || holds("head") || holds(".wte.")))
    fail(
        "{}: holds '{}' whole (save_embedding_layers, a larger vocabulary, or modules_to_save), "
        "which this run's adapter does not have: name its module in strategy.save if "
        "modules_to_save does, or else merge the adapter in PEFT, and start from the merged model",
        from, name);
  fail(
      "{}: contains '{}', which this run's adapter does not have: it is for another model or other "
      "targets",
      from, name);
}

}  // namespace

void check_inputs(const Model& model, const Batch& batch) {
  const auto& spec = model.spec();
  if (spec.vocabulary > 0 && !batch.tokens.defined() && !batch.hidden.defined())
    fail(
        "the data have no tokens, which this {} model needs: use a model for such data, or prepare "
        "text with this model's tokenizer",
        spec.family);
  if (takes_pictures(spec) && batch.tokens.defined())
    fail(
        "the data have tokens instead of images, which this {} model needs: use a text model, or "
        "prepare the data with kind = \"images\"",
        spec.family);
}

void check_declarations(const std::vector<Metric>& metrics, const std::string& by) {
  std::set<std::string> names;
  for (const auto& metric : metrics) {
    if (!is_key(metric.name))
      fail("{} declares a metric '{}': a name may contain letters, digits and _ / . -", by,
           metric.name);
    if (!names.insert(metric.name).second)
      fail("{} declares the metric '{}' twice: rename one of them", by, metric.name);
    if (!metric.accumulator)
      fail("{} declares the metric '{}' without an accumulator", by, metric.name);
  }
  if (!names.contains("loss"))
    fail("{} declares metrics without 'loss', which every run has: add metrics::loss", by);
}

void Strategies::check_losses() const {
  const Named* first = nullptr;
  for (const auto& named : list_) {
    if (!named.strategy->defines_loss()) continue;
    if (first)
      fail("strategies '{}' and '{}' both define the loss: keep one of them", first->name,
           named.name);
    first = &named;
  }
}

namespace {

/// A parameter that is trained, and no view knows of it.
void check_for_strays(const std::string& strategy,
                      const std::map<std::string, std::string>& trained_by,
                      const std::vector<NamedTensor>& of_others, Model& model) {
  for (const auto& [name, parameter] : trainable(model)) {
    const bool is_known =
        trained_by.contains(name) || std::ranges::any_of(of_others, [&](const NamedTensor& other) {
          return other.second.is_same(parameter);
        });
    if (!is_known)
      throw Fault(
          fmt::format("strategy '{}' sets requires_grad of {} itself: use ModelView::train instead",
                      strategy, name));
  }
}

/// In the order of registration. A weight that one strategy trains may be packed by another.
std::vector<NamedTensor> still_there(std::map<std::string, std::string> trained_by, Model& model) {
  std::vector<NamedTensor> trained;
  for (auto& parameter : model.module().named_parameters())
    if (trained_by.erase(parameter.key()) > 0)
      trained.emplace_back(parameter.key(), parameter.value());
  if (trained_by.empty()) return trained;
  const auto& [parameter, strategy] = *trained_by.begin();
  fail(
      "strategy '{}' trains {}, which another strategy has quantized: a quantized weight cannot be "
      "trained",
      strategy, parameter);
}

}  // namespace

void Strategies::prepare(Model& model) {
  check_losses();
  std::map<std::string, std::string> trained_by;
  const auto of_others = trainable(model);
  for (const auto& [name, strategy] : list_) {
    ModelView view(model, owner_);
    in_strategy(name, "prepare", {}, [&] {
      with_misfit_told(named(name), "change the layers", model, [&] { strategy->prepare(view); });
    });
    const auto own = view.trained();
    for (const auto& [parameter, tensor] : own) {
      const auto [first, is_new] = trained_by.emplace(parameter, name);
      if (!is_new)
        fail("strategies '{}' and '{}' both train {}: remove it from one of them", first->second,
             name, parameter);
    }
    check_for_strays(name, trained_by, of_others, model);
    trains_.push_back(!own.empty());
  }
  trained_ = still_there(trained_by, model);
  if (!trained_.empty()) return;
  if (list_.size() == 1)
    fail(
        "strategy '{}' trains no parameters: check its options; if it only changes the loss or the "
        "learning rates, list it as [[strategy]] after one that trains parameters, such as 'lora' "
        "or 'full'",
        list_[0].name);
  fail("the strategies train no parameters: list one that does, such as 'lora' or 'full'");
}

void Strategies::begin(Model& model, RunContext& run) {
  run.trained = trained_;
  seed_ = run.seed;
  for_each("begin", {}, [&](const Named& one) {
    with_misfit_told(named(one.name), "begin with the weights", model,
                     [&] { one.strategy->begin(model, run); });
    check_live(one.name, one.strategy->state(model), one.strategy->state(model));
  });
  std::set<std::string> names;
  for (const auto& [name, tensor] : state(model))
    if (!names.insert(name).second)
      throw Fault(fmt::format(
          "state() of a strategy names a tensor '{}', as another one is named that a checkpoint "
          "holds: give it another name",
          name));
}

void Strategies::on_epoch(Model& model, std::int64_t epoch, std::int64_t step) {
  for_each("on_epoch", step, [&](const Named& one) { one.strategy->on_epoch(model, epoch); });
}

void Strategies::on_step(Model& model, std::int64_t step) {
  for_each("on_step", step, [&](const Named& one) { one.strategy->on_step(model, step); });
}

namespace {

/// Batches that a strategy makes: its calls are seeded, and what they throw is told, as of the
/// strategy's other functions.
class MadeBatches final : public BatchSource {
 public:
  MadeBatches(std::string strategy, std::shared_ptr<BatchSource> source, std::int64_t seed)
      : strategy_(std::move(strategy)), source_(std::move(source)), seed_(seed) {}

  const StepPlan& begin_step(std::int64_t step) override {
    step_ = step;
    seed_call(seed_, step, hash_of_name("begin_step"));
    const StepPlan* plan = nullptr;
    in_strategy(strategy_, "batches", step, [&] { plan = &source_->begin_step(step); });
    return *plan;
  }

  Batch next() override {
    return in_strategy(strategy_, "batches", step_, [&] { return source_->next(); });
  }

 private:
  std::string strategy_;
  std::shared_ptr<BatchSource> source_;
  std::int64_t seed_;
  std::int64_t step_ = 0;
};

}  // namespace

std::shared_ptr<BatchSource> Strategies::batches(Model& model,
                                                 std::shared_ptr<BatchSource> of_data) {
  auto source = std::move(of_data);
  for_each("batches", {}, [&](const Named& one) {
    auto made = one.strategy->batches(model, source);
    if (!made) throw Fault(fmt::format("{} gives no source of batches", named(one.name)));
    if (made != source) source = std::make_shared<MadeBatches>(one.name, std::move(made), seed_);
  });
  return source;
}

bool Strategies::on_gradients(Model& model, std::int64_t step, double scale) {
  bool changed = false;
  for_each("on_gradients", step, [&](const Named& one) {
    const torch::NoGradGuard no_grad;
    if (auto* hook = gradient_hook(one); hook && hook->on_gradients(model, step, scale))
      changed = true;
  });
  return changed;
}

bool Strategies::need_gradients() const { return std::ranges::any_of(list_, gradient_hook); }

void Strategies::after_step(Model& model, std::int64_t step) {
  for_each("after_step", step, [&](const Named& one) {
    const torch::NoGradGuard no_grad;
    one.strategy->after_step(model, step);
  });
}

/// Each draws from LibTorch's generator what depends on the seed, the step and the function alone:
/// the same on every rank, and again after a resume.
void Strategies::for_each(const char* function, std::optional<std::int64_t> step,
                          const std::function<void(const Named&)>& work) const {
  for (std::size_t i = 0; i < list_.size(); ++i) {
    seed_call(seed_, step.value_or(-1), hash_of_name(function), i);
    in_strategy(list_[i].name, function, step, [&] { work(list_[i]); });
  }
}

std::vector<ParameterGroup> Strategies::groups(Model& model) {
  ParameterGroup matrices;
  ParameterGroup vectors;
  vectors.weight_decay_scale = 0;
  for (const auto& parameter : trained_)
    (parameter.second.dim() > 1 ? matrices : vectors).parameters.push_back(parameter);
  std::vector<ParameterGroup> groups;
  for (auto* group : {&matrices, &vectors})
    if (!group->parameters.empty()) groups.push_back(std::move(*group));
  for (const auto& [name, strategy] : list_)
    groups =
        in_strategy(name, "groups", {}, [&] { return strategy->groups(model, std::move(groups)); });
  return groups;
}

Loss Strategies::loss(Model& model, const ForwardContext& context) {
  check_inputs(model, context.batch());
  LossFunction loss = [](Model& m, const ForwardContext& c) {
    return call_plugin(
        {fmt::format("the model '{}'", m.spec().family), "forward", step_of(c)},
        [&] {
          return with_misfit_told("the loss", "be computed from the outputs", m,
                                  [&] { return supervised_loss(m, c); });
        },
        is_the_frameworks);
  };
  for (const auto& [name, strategy] : list_)
    loss = [inner = std::move(loss), &outer = *strategy, &name](Model& m, const ForwardContext& c) {
      auto made = in_strategy(name, "loss", step_of(c), [&] {
        return with_misfit_told(named(name), "compute its loss from the outputs", m,
                                [&] { return outer.loss(m, c, inner); });
      });
      check_loss(name, made, c);
      return made;
    };
  return loss(model, context);
}

std::vector<Metric> Strategies::metrics(std::vector<Metric> of_data) const {
  for (const auto& [name, strategy] : list_) {
    of_data =
        in_strategy(name, "metrics", {}, [&] { return strategy->metrics(std::move(of_data)); });
    check_declarations(of_data, fmt::format("strategy '{}'", name));
  }
  return of_data;
}

std::vector<NamedTensor> Strategies::state(Model& model) {
  auto state = trained_;
  for (const auto& [name, strategy] : list_)
    for (auto& [key, tensor] :
         in_strategy(name, "state", {}, [&] { return strategy->state(model); }))
      state.emplace_back(name + "/" + key, std::move(tensor));
  return state;
}

const Strategies::Named* Strategies::only_one_that_trains() const {
  if (std::ranges::count(trains_, true) != 1) return nullptr;
  return &list_[static_cast<std::size_t>(std::ranges::find(trains_, true) - trains_.begin())];
}

std::optional<Adapter> Strategies::export_adapter(Model& model) {
  const auto* one = only_one_that_trains();
  if (!one) return std::nullopt;
  return in_strategy(one->name, "export_adapter", {},
                     [&] { return one->strategy->export_adapter(model); });
}

std::optional<Adapter> Strategies::adapter_to_start(Model& model) {
  const auto* one = only_one_that_trains();
  if (!one) return std::nullopt;
  return in_strategy(one->name, "adapter_to_start", {},
                     [&] { return one->strategy->adapter_to_start(model); });
}

void Strategies::load_adapter(Model& model, const Adapter& adapter, const std::string& from) {
  const auto ours = adapter_to_start(model);
  if (!ours)
    fail(
        "{}: is an adapter, but this run's strategies produce a whole model: choose a strategy "
        "that produces an adapter",
        from);
  if (!ours->is_live)
    fail(
        "{}: this run's adapter is saved in a different form than it is trained in, so it cannot "
        "start from a saved one: change its initialisation",
        from);
  check_peft_config(*ours, adapter, from);
  std::map<std::string, at::Tensor> theirs;
  for (const auto& [name, tensor] : adapter.tensors) theirs[current_name(name)] = tensor;
  std::set<std::string> left;
  for (const auto& name : theirs | std::views::keys) left.insert(name);
  std::vector<NamedTensor> wanted = ours->tensors;
  std::erase_if(wanted, [&](const NamedTensor& tensor) {
    return is_drawn_again(tensor.first) && !theirs.contains(tensor.first);
  });
  for (const auto& [name, tensor] : wanted) {
    const auto found = theirs.find(name);
    if (found == theirs.end()) refuse_without({name, tensor}, wanted, theirs, from);
    if (found->second.sizes() != tensor.sizes())
      fail("{}: '{}' is {}, but {} in this run: it is for another model or has different options",
           from, name, c10::str(found->second.sizes()), c10::str(tensor.sizes()));
    left.erase(name);
  }
  if (!left.empty()) refuse_tensor(*left.begin(), from);
  check_tied(wanted, theirs, from);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : wanted) at::Tensor(tensor).copy_(theirs.at(name));
}

std::optional<std::size_t> Strategies::defining_loss() const {
  for (std::size_t i = 0; i < list_.size(); ++i)
    if (list_[i].strategy->defines_loss()) return i;
  return std::nullopt;
}

void Strategies::merge(Model& model) {
  for (const auto& [name, strategy] : list_)
    in_strategy(name, "merge", {}, [&] { strategy->merge(model); });
}

}  // namespace attune
