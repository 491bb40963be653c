// LoRA (Hu et al. 2021, arXiv:2106.09685): a trained low-rank change B A beside each frozen linear layer.
#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <set>

namespace {

using attune::nn::Linear;

/// y + scale dropout(x) A^T B^T. A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0, as in PEFT; in float32 at least, whatever the base has.
class LowRank final : public attune::nn::Delta {
 public:
  LowRank(const Linear& base, std::int64_t rank, double scale, double dropout) : scale_(scale), dropout_(dropout) {
    const auto options = base.weight.options().dtype(at::promote_types(base.weight.scalar_type(), at::kFloat)).requires_grad(false);
    a_ = register_parameter("A", at::empty({rank, base.in()}, options));
    b_ = register_parameter("B", at::zeros({base.out(), rank}, options));
    torch::nn::init::kaiming_uniform_(a_, std::sqrt(5.0));
  }

  at::Tensor forward(const Linear&, const at::Tensor& x, const at::Tensor& y) override {
    const at::Tensor narrowed = at::linear(at::dropout(x, dropout_, is_training()), a_.to(x.scalar_type()));
    return at::addmm(y, narrowed, b_.to(x.scalar_type()).t(), 1, scale_);
  }

  at::Tensor weight_delta(const Linear&) const override { return at::mm(b_, a_).mul_(scale_); }

 private:
  at::Tensor a_, b_;
  double scale_, dropout_;
};

class Lora final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t rank = 16;
    double alpha = 32;
    double dropout = 0;
    std::vector<std::string> targets = {"all-linear"};
    bool rslora = false;
    static void describe(attune::Schema<Options>& s) {
      s.key("rank", &Options::rank, "rank of each change").range(1, 65536);
      s.key("alpha", &Options::alpha, "the change is scaled by alpha / rank").above(0);
      s.key("dropout", &Options::dropout, "dropout of the input of the change while training").range(0, 0.9);
      s.key("targets", &Options::targets, "\"all-linear\", or names of linear layers: \"q_proj\", \"layers.3.*\"; '*' stands for any characters");
      s.key("rslora", &Options::rslora, "scale by alpha / sqrt(rank) instead (rsLoRA)");
    }
  };
  explicit Lora(Options options) : options_(std::move(options)) {}

  void prepare(attune::Model& model) override {
    for (auto& parameter : model.module().parameters()) parameter.requires_grad_(false);
    const auto linears = attune::nn::linears(model.module());
    targets_ = target_names(model, linears);
    for (auto& [name, linear] : linears) {
      if (std::ranges::binary_search(targets_, name)) adapt(name, *linear);
    }
    target_modules_ = short_names(linears);
    if (model.spec().task == attune::Task::classification) {
      for (auto& parameter : model.projection().parameters()) parameter.requires_grad_(true);
    }
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    attune::Adapter adapter;
    const bool classifies = model.spec().task == attune::Task::classification;
    nlohmann::json saved;  // null: none
    for (auto& [name, linear] : attune::nn::linears(model.module())) {
      const auto prefix = "base_model.model." + name + ".";
      if (std::ranges::binary_search(targets_, name)) {
        for (auto& parameter : linear->named_children()["lora"]->named_parameters()) {
          adapter.tensors.emplace_back(prefix + "lora_" + parameter.key() + ".weight", parameter.value());
        }
      } else if (classifies && linear.get() == &model.projection()) {
        saved = {name};
        for (auto& parameter : linear->named_parameters()) adapter.tensors.emplace_back(prefix + parameter.key(), parameter.value());
      }
    }
    adapter.config = nlohmann::ordered_json{
        {"peft_type", "LORA"},
        {"task_type", classifies ? "SEQ_CLS" : "CAUSAL_LM"},
        {"base_model_name_or_path", nullptr},
        {"r", options_.rank},
        {"lora_alpha", options_.alpha},
        {"lora_dropout", options_.dropout},
        {"use_rslora", options_.rslora},
        {"target_modules", target_modules_},
        {"modules_to_save", saved},
        {"bias", "none"},
        {"fan_in_fan_out", false},
        {"inference_mode", true},
    }.dump(2) + "\n";
    return adapter;
  }

 private:
  using Linears = std::vector<std::pair<std::string, std::shared_ptr<Linear>>>;

  /// Sorted. The head is no target of "all-linear", as in PEFT.
  std::vector<std::string> target_names(attune::Model& model, const Linears& linears) const {
    std::vector<std::string> names;
    for (auto& [name, linear] : linears) {
      if (linear.get() != &model.projection()) names.push_back(name);
    }
    if (options_.targets != std::vector<std::string>{"all-linear"}) {
      names = attune::nn::select_names(options_.targets, names, "strategy.targets");
      if (names.empty()) attune::fail("strategy.targets is empty: name the linear layers to adapt, or set it to \"all-linear\"");
    }
    std::ranges::sort(names);
    return names;
  }

  void adapt(const std::string& name, Linear& linear) const {
    const auto most = std::min(linear.in(), linear.out());
    if (options_.rank > most) {
      attune::fail("strategy.rank is {}, but {} is {} x {}: set rank to at most {}, or leave that layer out of strategy.targets", options_.rank, name, linear.out(),
                   linear.in(), most);
    }
    const double rank = static_cast<double>(options_.rank);
    const double scale = options_.alpha / (options_.rslora ? std::sqrt(rank) : rank);
    linear.add_delta("lora", std::make_shared<LowRank>(linear, options_.rank, scale, options_.dropout));
  }

  /// PEFT matches names by their end: the last part says enough where every layer that bears it is a target.
  std::vector<std::string> short_names(const Linears& linears) const {
    const auto last_part = [](const std::string& name) { return name.substr(name.rfind('.') + 1); };
    std::set<std::string> partly, names;
    for (auto& [name, linear] : linears) {
      if (!std::ranges::binary_search(targets_, name)) partly.insert(last_part(name));
    }
    for (const auto& name : targets_) names.insert(partly.contains(last_part(name)) ? name : last_part(name));
    return {names.begin(), names.end()};
  }

  Options options_;
  std::vector<std::string> targets_, target_modules_;
};

}  // namespace

ATTUNE_PLUGIN("lora", "1.0.0", registry) { registry.strategy<Lora>("lora", "low-rank adapters beside frozen linear layers, saved for PEFT"); }
