// LoRA (Hu et al. 2021, arXiv:2106.09685) and what grew from it: a trained low-rank change B A beside each frozen linear layer.
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <attune/tied.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace {

using attune::NamedTensor;
using attune::nn::Conv2d;
using attune::nn::add_product;
using attune::nn::Linear;
using attune::nn::product;
using nlohmann::ordered_json;

/// A change of rank r, scaled: y + scale dropout(x) A^T B^T, A [r, in], B [out, r], in float32 at least, whatever the base has.
struct Shape {
  std::int64_t rank;
  double alpha, scale, dropout;
};

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// y + scale (x a^T) b^T, written into y, which is given or else x weight^T + bias, both frozen. x, y: rows; a [r, in], b [out, r]. A function of its own
/// because LibTorch's would copy y and sum two gradients of x, and because the gradients of a and b are twice as fast with the long side in columns.
/// What is multiplied is rounded to `operands`.
struct LowRankChange : torch::autograd::Function<LowRankChange> {
  using Maybe = std::optional<at::Tensor>;

  static at::Tensor forward(AutogradContext* context, const Maybe& given_y, const at::Tensor& given_x, const Maybe& weight, const Maybe& bias, const at::Tensor& given_a,
                            const at::Tensor& given_b, double scale, at::ScalarType operands) {
    const at::Tensor x = given_x.to(operands), a = given_a.to(operands), b = given_b.to(operands), narrowed = product(x, a.t()).to(operands);
    context->save_for_backward({x, a, b, narrowed, weight.value_or(at::Tensor())});
    context->saved_data["scale"] = scale;
    context->saved_data["with_dx"] = given_x.requires_grad();
    context->saved_data["with_da"] = given_a.requires_grad();
    context->saved_data["with_db"] = given_b.requires_grad();
    if (given_y) context->mark_dirty({*given_y});
    const at::Tensor y = given_y ? *given_y : multiplied(x, weight->t(), given_x.scalar_type());
    if (bias) y.add_(*bias);
    add_product(y, narrowed, b.t(), scale);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &a = saved[1], &b = saved[2], &narrowed = saved[3], &weight = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const at::Tensor dy = gradients[0].to(b.scalar_type()), dnarrowed = product(dy, b).mul_(scale).to(b.scalar_type());
    const auto is_wanted = [&](const char* gradient) { return context->saved_data[gradient].toBool(); };
    at::Tensor dx, da, db;
    if (is_wanted("with_dx") && weight.defined()) add_product(dx = multiplied(dy, weight, gradients[0].scalar_type()), dnarrowed, a);
    if (is_wanted("with_dx") && !weight.defined()) dx = product(dnarrowed, a);
    if (is_wanted("with_da")) da = product(dnarrowed.t(), x);
    if (is_wanted("with_db")) db = product(narrowed.t(), dy).mul_(scale).t();
    return {weight.defined() ? at::Tensor() : gradients[0], dx, {}, {}, da, db, {}, {}};
  }

 private:
  static at::Tensor multiplied(const at::Tensor& left, const at::Tensor& right, at::ScalarType type) {
    const at::Tensor result = at::empty({left.size(0), right.size(1)}, left.options().dtype(type));
    add_product(result, left, right, 1, 0);
    return result;
  }
};

class LowRank : public attune::nn::Delta {
 public:
  /// A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0, as in PEFT.
  LowRank(const Linear& base, const Shape& shape) : shape(shape) {
    const auto options = base.options().dtype(at::promote_types(c10::typeMetaToScalarType(base.options().dtype()), at::kFloat)).requires_grad(false);
    a = register_parameter("A", at::empty({shape.rank, base.in()}, options));
    b = register_parameter("B", at::zeros({base.out(), shape.rank}, options));
    torch::nn::init::kaiming_uniform_(a, std::sqrt(5.0));
  }

  at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y) override {
    return changed(base, y.flatten(0, -2), dropped(x), {}, {}).view_as(y);
  }

  at::Tensor whole(const Linear& base, const at::Tensor& x) override {
    if (base.packed() || (shape.dropout > 0 && is_training())) return {};
    auto sizes = x.sizes().vec();
    sizes.back() = base.out();
    return changed(base, {}, x, base.operand(), base.bias.defined() ? std::optional(base.bias) : std::nullopt).view(sizes);
  }

  void merge(Linear& base) const override { base.weight.add_(change()); }

  /// [out, in]
  at::Tensor change() const { return at::mm(b, a).mul_(shape.scale); }
  at::Tensor changed(const Linear& base, const LowRankChange::Maybe& y, const at::Tensor& x, const LowRankChange::Maybe& weight, const LowRankChange::Maybe& bias) const {
    const auto type = x.scalar_type(), operands = base.rounds_operands ? at::kBFloat16 : type;
    return LowRankChange::apply(y, x.flatten(0, -2), weight, bias, a.to(type), b.to(type), shape.scale, operands);
  }
  at::Tensor dropped(const at::Tensor& x) const { return at::dropout(x, shape.dropout, is_training()); }

  Shape shape;
  at::Tensor a, b;
};

/// B A = 0 although neither is zero: their rows and columns come from halves of one orthogonal matrix (PEFT's "orthogonal").
void start_orthogonal(LowRank& delta) {
  const auto rank = delta.shape.rank;
  const auto like = delta.a.options();
  const at::Tensor q = std::get<0>(at::linalg_qr(at::randn({rank, rank}, like)));
  const at::Tensor odd = q.slice(0, 0, {}, 2), even = q.slice(0, 1, {}, 2);
  const torch::NoGradGuard no_grad;
  delta.a.copy_(at::randn({delta.a.size(1), rank / 2}, like).mm(odd).t() / 10);
  delta.b.copy_(at::randn({rank / 2, delta.b.size(0)}, like).t().mm(even) / 10);
}

/// PiSSA (Meng et al. 2024, arXiv:2404.02948): A and B start as the principal components of the weight, which keeps the rest.
class Principal final : public LowRank {
 public:
  Principal(Linear& base, const Shape& shape) : LowRank(base, shape) {
    const torch::NoGradGuard no_grad;
    const auto [u, s, vh] = at::linalg_svd(base.weight.to(a.scalar_type()), false);
    const at::Tensor root = (s.narrow(0, 0, shape.rank) / shape.scale).sqrt();
    b.copy_(u.narrow(1, 0, shape.rank) * root);
    a.copy_(root.unsqueeze(1) * vh.narrow(0, 0, shape.rank));
    first_a = register_buffer("first_A", a.detach().clone());
    first_b = register_buffer("first_B", b.detach().clone());
    base.weight.set_data((base.weight - change().to(base.weight.scalar_type())));
  }

  at::Tensor undone(const Linear&, const at::Tensor& x, const at::Tensor& y) override {
    return at::addmm(y, at::linear(x, first_a.to(x.scalar_type())), first_b.to(x.scalar_type()).t(), 1, shape.scale);
  }

  at::Tensor first_a, first_b;
};

/// DoRA (Liu et al. 2024, arXiv:2402.09353), equation 5: the weight's rows get the direction of W + scale B A and a trained length.
class Decomposed final : public LowRank {
 public:
  Decomposed(const Linear& base, const Shape& shape) : LowRank(base, shape) {
    const torch::NoGradGuard no_grad;
    magnitude = register_parameter("magnitude", length(base).clone());
  }

  at::Tensor whole(const Linear&, const at::Tensor&) override { return {}; }

  at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y) override {
    const at::Tensor input = dropped(x);
    const bool drops = shape.dropout > 0 && is_training();
    const at::Tensor plain = drops ? at::linear(input, base.dense_weight()) : base.bias.defined() ? y - base.bias : y;
    const at::Tensor ratio = (magnitude / length(base).detach()).to(x.scalar_type());
    const at::Tensor low_rank = at::linear(at::linear(input, a.to(x.scalar_type())), b.to(x.scalar_type()));
    return y + (ratio - 1) * plain + ratio * shape.scale * low_rank;
  }

  void merge(Linear& base) const override {
    const at::Tensor ratio = magnitude / length(base);
    base.weight.add_(change()).mul_(ratio.unsqueeze(1));
  }

  /// Of every row of W + scale B A, [out].
  at::Tensor length(const Linear& base) const { return (base.dense_weight().detach().to(a.scalar_type()) + change()).norm(2, 1); }

  at::Tensor magnitude;
};

/// The change of a convolution, as PEFT has it: A a convolution to `rank` channels with the layer's own kernel and stride, B one of single points from
/// there. A [r, in, kernel, kernel], B [out, r, 1, 1].
class LowRankConvolution final : public attune::nn::ConvolutionDelta {
 public:
  LowRankConvolution(const Conv2d& base, const Shape& shape) : shape(shape) {
    const auto& weight = base.weight;
    const auto options = weight.options().dtype(at::promote_types(weight.scalar_type(), at::kFloat)).requires_grad(false);
    a = register_parameter("A", at::empty({shape.rank, weight.size(1), weight.size(2), weight.size(3)}, options));
    b = register_parameter("B", at::zeros({weight.size(0), shape.rank, 1, 1}, options));
    torch::nn::init::kaiming_uniform_(a, std::sqrt(5.0));
  }

  at::Tensor forward(const Conv2d& base, const at::Tensor& x, const at::Tensor& y) override {
    const at::Tensor narrowed = at::conv2d(at::dropout(x, shape.dropout, is_training()), a.to(x.scalar_type()), {}, base.options().stride, base.options().padding);
    return y + at::conv2d(narrowed, b.to(x.scalar_type())) * shape.scale;
  }

  void merge(Conv2d& base) const override { base.weight.add_(at::mm(b.flatten(1), a.flatten(1)).view_as(base.weight), shape.scale); }

  Shape shape;
  at::Tensor a, b;
};

class Lora final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t rank = 16;
    double alpha = 32;
    attune::NumberMap rank_pattern, alpha_pattern;
    double dropout = 0;
    std::vector<std::string> targets = {"all-linear"};
    bool rslora = false;
    bool dora = false;
    std::string init = "default";
    double b_learning_rate = 1;
    std::string bias = "none";
    std::vector<std::string> save;
    static void describe(attune::Schema<Options>& s) {
      s.key("rank", &Options::rank, "rank of each change").range(1, 65536);
      s.key("alpha", &Options::alpha, "the change is scaled by alpha / rank").above(0);
      s.key("rank_pattern", &Options::rank_pattern, "other ranks by layer: { \"q_proj\" = 8 }; the first name that matches counts");
      s.key("alpha_pattern", &Options::alpha_pattern, "other alphas by layer");
      s.key("dropout", &Options::dropout, "dropout of the input of the change while training").range(0, 0.9);
      s.key("targets", &Options::targets, "\"all-linear\", or names of linear layers and convolutions: \"q_proj\", \"layers.3.*\"; '*' stands for any characters");
      s.key("rslora", &Options::rslora, "scale by alpha / sqrt(rank) instead (rsLoRA)");
      s.key("dora", &Options::dora, "train the length of the weight's rows apart from their direction (DoRA)");
      s.key("init", &Options::init, "how the change starts: A random and B zero; both random with B A = 0; or the principal components of the weight (PiSSA)")
          .choices({"default", "orthogonal", "pissa"});
      s.key("b_learning_rate", &Options::b_learning_rate, "B learns so many times faster than A (LoRA+ suggests 16)").above(0);
      s.key("bias", &Options::bias, "biases to train besides: none, those of the adapted layers, or all").choices({"none", "lora_only", "all"});
      s.key("save", &Options::save, "modules to train in full besides, and to save with the adapter: \"embed_tokens\"");
    }
  };
  explicit Lora(Options options) : options_(std::move(options)) {}

  void prepare(attune::Model& model) override {
    if (options_.dora && options_.init == "pissa") attune::fail("strategy.dora and strategy.init = \"pissa\" both change what the weight stands for: choose one of them");
    auto targets = attune::nn::choose_targets_and_convolutions(model, options_.targets);
    layers_ = std::move(targets.linears), convolutions_ = std::move(targets.convolutions);
    names_ = attune::nn::names_of(layers_);
    std::ranges::copy(attune::nn::names_of(convolutions_), std::back_inserter(names_));
    target_modules_ = attune::nn::peft_names(model, names_);
    check_patterns();
    for (auto& [name, linear] : layers_) adapt(name, *linear);
    for (auto& [name, convolution] : convolutions_) adapt(name, *convolution);
    attune::nn::train_head(model);
    train_biases(model);
    train_saved(model);
  }

  std::vector<attune::ParameterGroup> groups(attune::Model&, std::vector<attune::ParameterGroup> groups) override {
    if (options_.b_learning_rate == 1) return groups;
    // LoRA+ (Hayou et al. 2024, arXiv:2402.12354).
    std::vector<attune::ParameterGroup> split;
    for (auto& group : groups) {
      attune::ParameterGroup faster{{}, group.learning_rate_scale * options_.b_learning_rate, group.weight_decay_scale};
      std::erase_if(group.parameters, [&](const NamedTensor& parameter) {
        return parameter.first.ends_with(".lora.B") && (faster.parameters.push_back(parameter), true);
      });
      for (auto* part : {&group, &faster})
        if (!part->parameters.empty()) split.push_back(std::move(*part));
    }
    return split;
  }

  std::vector<NamedTensor> state(attune::Model&) override {
    std::vector<NamedTensor> kept;
    for (const auto& [name, linear] : layers_)
      if (const auto* delta = dynamic_cast<Principal*>(delta_of(*linear))) {
        kept.emplace_back(name + ".first_A", delta->first_a);
        kept.emplace_back(name + ".first_B", delta->first_b);
      }
    return kept;
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    const bool doubled = options_.init == "pissa";
    ordered_json config{
        {"peft_type", "LORA"},
        {"r", options_.rank * (doubled ? 2 : 1)},
        {"lora_alpha", exported_alpha(options_.alpha)},
        {"rank_pattern", patterns(options_.rank_pattern, [&](double rank) { return static_cast<std::int64_t>(rank) * (doubled ? 2 : 1); })},
        {"alpha_pattern", patterns(options_.alpha_pattern, [&](double alpha) { return exported_alpha(alpha); })},
        {"lora_dropout", options_.dropout},
        {"use_rslora", options_.rslora},
        {"use_dora", options_.dora},
        {"target_modules", target_modules_},
        {"bias", options_.bias},
        {"fan_in_fan_out", attune::nn::stored_transposed(layers_)},
    };
    std::vector<NamedTensor> tensors;
    for (const auto& [name, linear] : layers_) {
      const auto& delta = *delta_of(*linear);
      add_tensors(tensors, attune::nn::peft_prefix(name), delta);
    }
    for (const auto& [name, convolution] : convolutions_) {
      const auto& delta = dynamic_cast<const LowRankConvolution&>(*convolution->deltas().front());
      tensors.emplace_back(attune::nn::peft_prefix(name) + "lora_A.weight", delta.a);
      tensors.emplace_back(attune::nn::peft_prefix(name) + "lora_B.weight", delta.b);
    }
    add_biases(tensors, model);
    if (!saved_.empty()) config["modules_to_save"] = saved_;
    for (const auto& module : saved_) add_saved(tensors, module, model);
    auto adapter = attune::nn::peft_adapter(model, std::move(config), std::move(tensors));
    adapter.is_live = !doubled;
    return adapter;
  }

 private:
  static LowRank* delta_of(const Linear& linear) {
    for (const auto& delta : linear.deltas())
      if (auto* found = dynamic_cast<LowRank*>(delta.get())) return found;
    ATTUNE_ASSERT(false, "a target without its change: {} deltas", linear.deltas().size());
  }

  /// PEFT reads a pattern as a regular expression for the end of a name.
  template <class Convert>
  static ordered_json patterns(const attune::NumberMap& given, Convert convert) {
    auto json = ordered_json::object();
    for (const auto& [pattern, value] : given) {
      std::string expression;
      for (const char c : pattern) expression += c == '*' ? ".*" : c == '.' ? "\\." : std::string(1, c);
      json[expression] = convert(value);
    }
    return json;
  }

  static std::optional<double> matching(const attune::NumberMap& patterns, const std::string& name) {
    for (const auto& [pattern, value] : patterns)
      if (attune::nn::name_matches(pattern, name)) return value;
    return std::nullopt;
  }

  void check_patterns() const {
    for (const auto& [option, patterns] : {std::pair("strategy.rank_pattern", &options_.rank_pattern), std::pair("strategy.alpha_pattern", &options_.alpha_pattern)})
      for (const auto& [pattern, value] : *patterns) {
        attune::nn::select_names({pattern}, names_, option);
        if (value <= 0 || (patterns == &options_.rank_pattern && value != std::floor(value))) attune::fail("{} has {} for \"{}\": give a {} above 0", option, value, pattern, patterns == &options_.rank_pattern ? "whole number" : "number");
      }
  }

  /// What a layer [out, in] gets.
  Shape shape_for(const std::string& name, std::int64_t out, std::int64_t in) const {
    const auto rank = static_cast<std::int64_t>(matching(options_.rank_pattern, name).value_or(static_cast<double>(options_.rank)));
    const auto most = std::min(in, out);
    if (rank > most) attune::fail("strategy.rank is {}, but {} is {} x {}: set rank to at most {}, or leave that layer out of strategy.targets", rank, name, out, in, most);
    const double alpha = matching(options_.alpha_pattern, name).value_or(options_.alpha), r = static_cast<double>(rank);
    return {rank, alpha, alpha / (options_.rslora ? std::sqrt(r) : r), options_.dropout};
  }

  void adapt(const std::string& name, Conv2d& convolution) const {
    if (convolution.options().groups > 1) attune::fail("strategy.targets names {}, a convolution in {} groups, which a low-rank change does not fit: leave it out", name, convolution.options().groups);
    if (options_.dora || options_.init != "default") attune::fail("strategy.targets names {}, and strategy.{} is for linear layers alone: leave one of them out", name, options_.dora ? "dora" : "init");
    convolution.add_delta("lora", std::make_shared<LowRankConvolution>(convolution, shape_for(name, convolution.weight.size(0), convolution.weight[0].numel())));
  }

  void adapt(const std::string& name, Linear& linear) const {
    const auto shape = shape_for(name, linear.out(), linear.in());
    const auto rank = shape.rank;
    if (options_.init == "orthogonal" && rank % 2 != 0) attune::fail("strategy.init = \"orthogonal\" needs an even rank, and {} has {}", name, rank);
    if (options_.init == "pissa" && linear.packed()) attune::fail("strategy.init = \"pissa\" changes the base's weights, which are held packed: list 'quantize' after 'lora', or leave out init");
    linear.add_delta("lora", make(linear, shape));
  }

  std::shared_ptr<LowRank> make(Linear& linear, const Shape& shape) const {
    if (options_.init == "pissa") return std::make_shared<Principal>(linear, shape);
    const auto delta = options_.dora ? std::make_shared<Decomposed>(linear, shape) : std::make_shared<LowRank>(linear, shape);
    if (options_.init == "orthogonal") start_orthogonal(*delta);
    return delta;
  }

  void train_biases(attune::Model& model) const {
    if (options_.bias == "lora_only") {
      for (const auto& [name, linear] : layers_)
        if (linear->bias.defined()) linear->bias.requires_grad_(true);
      for (const auto& [name, convolution] : convolutions_)
        if (convolution->bias.defined()) convolution->bias.requires_grad_(true);
    } else if (options_.bias == "all") {
      for (auto& parameter : model.module().named_parameters())
        if (parameter.key().ends_with("bias")) parameter.value().requires_grad_(true);
    }
  }

  /// Biases of adapted layers lie, for PEFT, in the layer it has wrapped.
  void add_biases(std::vector<NamedTensor>& tensors, attune::Model& model) const {
    if (options_.bias == "none") return;
    for (const auto& parameter : model.module().named_parameters()) {
      const auto& name = parameter.key();
      if (!name.ends_with(".bias") || name.ends_with(".lora.bias") || !parameter.value().requires_grad()) continue;
      const auto module = name.substr(0, name.size() - 5);
      const bool adapted = std::ranges::find(names_, module) != names_.end();
      const bool saved = std::ranges::find(saved_, module) != saved_.end() || in_head(model, module);
      if (!saved) tensors.emplace_back(attune::nn::peft_prefix(module) + (adapted ? "base_layer.bias" : "bias"), parameter.value());
    }
  }

  void train_saved(attune::Model& model) {
    if (options_.save.empty()) return;
    tied_ = attune::nn::tied_head(model);
    std::vector<std::string> names;
    for (const auto& item : model.module().named_modules("", false)) {
      const auto* module = item.value().get();
      const bool is_delta = dynamic_cast<const attune::nn::Delta*>(module) || dynamic_cast<const attune::nn::ConvolutionDelta*>(module);
      const bool is_tied = tied_ && item.key() == tied_->head;
      if (!is_delta && (is_tied || !module->parameters(false).empty())) names.push_back(item.key());
    }
    saved_ = attune::nn::select_names(options_.save, names, "strategy.save");
    save_tied();
    for (const auto& name : saved_) {
      if (std::ranges::find(names_, name) != names_.end())
        attune::fail("strategy.save and strategy.targets both name {}: take it out of one of them", name);
      for (auto& parameter : module_named(model, name)->parameters(false)) parameter.requires_grad_(true);
    }
    std::erase_if(saved_, [&](const std::string& name) { return in_head(model, name); });  // a classifier's head is saved anyway
  }

  /// PEFT copies each module that it trains, so that tied ones part there: both are named, and both get the tensor.
  void save_tied() {
    if (!tied_) return;
    const auto is_saved = [&](const std::string& name) { return std::ranges::find(saved_, name) != saved_.end(); };
    const bool has_embedding = is_saved(tied_->embedding), has_head = is_saved(tied_->head);
    if (has_embedding && !has_head) saved_.push_back(tied_->head);
    if (has_head && !has_embedding) saved_.push_back(tied_->embedding);
  }

  void add_saved(std::vector<NamedTensor>& tensors, const std::string& module, attune::Model& model) const {
    const bool is_tied = tied_ && module == tied_->head;
    for (const auto& parameter : module_named(model, is_tied ? tied_->embedding : module)->named_parameters())
      tensors.emplace_back(attune::nn::peft_prefix(module) + parameter.key(), parameter.value());
  }

  static bool in_head(const attune::Model& model, const std::string& module) {
    return std::ranges::any_of(model.head_modules(), [&](const std::string& head) { return module == head || module.starts_with(head + "."); });
  }

  static std::shared_ptr<torch::nn::Module> module_named(attune::Model& model, const std::string& name) { return model.module().named_modules("", false)[name]; }

  /// The change since the start as one of twice the rank: B A - B0 A0 = [B, -B0] [A; A0]. The scale stays, so alpha grows with the rank.
  double exported_alpha(double alpha) const { return options_.init != "pissa" ? alpha : alpha * (options_.rslora ? std::sqrt(2.0) : 2.0); }

  static void add_tensors(std::vector<NamedTensor>& tensors, const std::string& prefix, const LowRank& delta) {
    if (const auto* principal = dynamic_cast<const Principal*>(&delta)) {
      tensors.emplace_back(prefix + "lora_A.weight", at::cat({delta.a.detach(), principal->first_a}));
      tensors.emplace_back(prefix + "lora_B.weight", at::cat({delta.b.detach(), -principal->first_b}, 1));
      return;
    }
    tensors.emplace_back(prefix + "lora_A.weight", delta.a);
    tensors.emplace_back(prefix + "lora_B.weight", delta.b);
    if (const auto* decomposed = dynamic_cast<const Decomposed*>(&delta)) tensors.emplace_back(prefix + "lora_magnitude_vector", decomposed->magnitude);
  }

  Options options_;
  std::vector<attune::nn::NamedLinear> layers_;
  std::vector<attune::nn::NamedConvolution> convolutions_;
  std::vector<std::string> names_, target_modules_, saved_;  // names_: of both
  std::optional<attune::nn::TiedHead> tied_;                 // absent: the head has a weight of its own
};

}  // namespace

ATTUNE_PLUGIN("lora", "2.0.0", registry) { registry.strategy<Lora>("lora", "low-rank adapters beside frozen linear layers, saved for PEFT: LoRA, rsLoRA, LoRA+, DoRA, PiSSA"); }
