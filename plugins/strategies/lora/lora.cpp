// LoRA (Hu et al. 2021, arXiv:2106.09685) and what grew from it: a trained low-rank change B A
// beside each frozen linear layer.
#include "deltas.hpp"
#include "token_rows.hpp"

#include <attune/adapter.hpp>
#include <attune/module_name.hpp>
#include <attune/plugin.hpp>
#include <attune/tied.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace {

enum class Init { standard, orthogonal, pissa, olora };
enum class Bias { none, lora_only, all };
const attune::Choices<Init> inits{{"default", Init::standard},
                                  {"orthogonal", Init::orthogonal},
                                  {"pissa", Init::pissa},
                                  {"olora", Init::olora}};
const attune::Choices<Bias> biases{
    {"none", Bias::none}, {"lora_only", Bias::lora_only}, {"all", Bias::all}};

using namespace lora;
using attune::NamedTensor;
using nlohmann::ordered_json;

class Lora final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t rank = 16;
    double alpha = 32;
    attune::NumberMap rank_pattern;
    attune::NumberMap alpha_pattern;
    double dropout = 0;
    std::vector<std::string> targets = {"all-linear"};
    bool rslora = false;
    bool dora = false;
    Init init = Init::standard;
    double b_learning_rate = 1;
    Bias bias = Bias::none;
    bool lora_bias = false;
    std::vector<std::string> save;
    std::vector<std::int64_t> token_rows;
    std::vector<std::int64_t> head_rows;
    static void describe(attune::Schema<Options>& s) {
      s.key("rank", &Options::rank, "rank of each delta").range(1, 65536);
      s.key("alpha", &Options::alpha, "scaling numerator: each delta is scaled by alpha / rank")
          .above(0);
      s.key("rank_pattern", &Options::rank_pattern,
            "different ranks for some layers, by name: { \"q_proj\" = 8 }; the first matching name "
            "applies");
      s.key("alpha_pattern", &Options::alpha_pattern,
            "different alphas for some layers, by name: { \"q_proj\" = 16 }; the first matching "
            "name applies");
      s.key("dropout", &Options::dropout,
            "dropout probability of the delta's input during training")
          .range(0, 0.9);
      s.key("targets", &Options::targets,
            "layers to adapt: \"all-linear\", or names of linear layers and convolutions such as "
            "\"q_proj\" and \"layers.3.*\"; '*' matches any characters");
      s.key("rslora", &Options::rslora,
            "scale deltas by alpha / sqrt(rank) instead of alpha / rank (rsLoRA)");
      s.key("dora", &Options::dora,
            "train the magnitude of the weight's rows separately from their direction (DoRA)");
      s.key("init", &Options::init,
            "initialization of A and B; default: A random, B zero; orthogonal: both random with B "
            "A = 0; pissa: principal components of the weight (PiSSA); olora: part of its QR "
            "decomposition (OLoRA)",
            inits);
      s.key("b_learning_rate", &Options::b_learning_rate,
            "learning rate of B as a multiple of the learning rate of A (LoRA+ suggests 16)")
          .above(0);
      s.key("bias", &Options::bias,
            "biases to train in addition; none, lora_only: those of the adapted layers, or all",
            biases);
      s.key("lora_bias", &Options::lora_bias, "add a trained bias to B, scaled like B");
      s.key("save", &Options::save,
            "modules to train in full and save with the adapter, such as \"embed_tokens\"");
      s.key("token_rows", &Options::token_rows,
            "ids of tokens whose embedding rows are trained in full; includes the rows of a head "
            "that shares the embedding's weight");
      s.key("head_rows", &Options::head_rows,
            "ids of tokens whose rows are trained in full in a head with a weight of its own");
    }
  };
  explicit Lora(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    owner_ = view.owner();
    if (options_.dora && splits_base())
      attune::fail(
          "strategy.dora and strategy.init = \"{}\" both reparametrize the weight: choose one of "
          "them",
          attune::name_of(options_.init, inits));
    if (options_.lora_bias && (options_.dora || options_.init != Init::standard))
      attune::fail(
          "strategy.lora_bias cannot be combined with dora or a non-default init, as in PEFT: "
          "choose one of them");
    auto targets = attune::nn::choose_targets_and_convolutions(model, options_.targets);
    layers_ = std::move(targets.linears);
    convolutions_ = std::move(targets.convolutions);
    names_ = attune::nn::names_of(layers_);
    std::ranges::copy(attune::nn::names_of(convolutions_), std::back_inserter(names_));
    target_modules_ = attune::nn::peft_names(model, names_);
    check_patterns();
    for (auto& [name, linear] : layers_) adapt(view, name, *linear);
    for (auto& [name, convolution] : convolutions_) adapt(view, name, *convolution);
    attune::nn::train_head(view);
    train_biases(view);
    train_saved(view);
    train_rows(view);
  }

  std::vector<attune::ParameterGroup> groups(attune::Model&,
                                             std::vector<attune::ParameterGroup> groups) override {
    if (options_.b_learning_rate == 1) return groups;
    // LoRA+ (Hayou et al. 2024, arXiv:2402.12354).
    std::vector<attune::ParameterGroup> split;
    for (auto& group : groups) {
      attune::ParameterGroup faster{
          {}, group.learning_rate_scale * options_.b_learning_rate, group.weight_decay_scale};
      std::erase_if(group.parameters, [&](const NamedTensor& parameter) {
        const bool is_of_b =
            parameter.first.ends_with(".lora.B") || parameter.first.ends_with(".lora.B_bias");
        return is_of_b && (faster.parameters.push_back(parameter), true);
      });
      for (auto* part : {&group, &faster})
        if (!part->parameters.empty()) split.push_back(std::move(*part));
    }
    return split;
  }

  std::vector<NamedTensor> state(attune::Model&) override {
    std::vector<NamedTensor> kept;
    for (const auto& [name, linear] : layers_)
      if (const auto* delta = dynamic_cast<Split*>(delta_of(*linear))) {
        kept.emplace_back(name + ".first_A", delta->first_a);
        kept.emplace_back(name + ".first_B", delta->first_b);
      }
    return kept;
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    return adapter_of(model, splits_base());
  }

  std::optional<attune::Adapter> adapter_to_start(attune::Model& model) override {
    return adapter_of(model, /*doubled=*/false);
  }

 private:
  /// Of the base as it was: where a part of it was taken away, as a change of twice the rank
  /// (`doubled`), or as A and B themselves, which PEFT reads over the base that it takes the same
  /// part away from.
  attune::Adapter adapter_of(attune::Model& model, bool doubled) {
    ordered_json config = config_of(doubled);
    std::vector<NamedTensor> tensors;
    for (const auto& [name, linear] : layers_)
      add_tensors(tensors, attune::nn::peft_prefix(name), *delta_of(*linear), doubled);
    for (const auto& [name, convolution] : convolutions_) {
      const auto& delta = *own_change<LowRankConvolution>(*convolution);
      tensors.emplace_back(attune::nn::peft_prefix(name) + "lora_A.weight", delta.a);
      tensors.emplace_back(attune::nn::peft_prefix(name) + "lora_B.weight", delta.b);
    }
    add_biases(tensors, model);
    add_rows(config, tensors);
    if (!saved_.empty()) config["modules_to_save"] = saved_;
    for (const auto& module : saved_) add_saved(tensors, module, model);
    auto adapter = attune::nn::peft_adapter(model, std::move(config), std::move(tensors));
    adapter.is_live = !doubled;
    return adapter;
  }

  ordered_json config_of(bool doubled) const {
    // the scale stays
    const auto alpha_of = [&](double alpha) {
      return !doubled ? alpha : alpha * (options_.rslora ? std::sqrt(2.0) : 2.0);
    };
    const auto rank_of = [&](double rank) {
      return static_cast<std::int64_t>(rank) * (doubled ? 2 : 1);
    };
    ordered_json config{
        {"peft_type", "LORA"},
        {"r", rank_of(static_cast<double>(options_.rank))},
        {"lora_alpha", alpha_of(options_.alpha)},
        {"rank_pattern", patterns(options_.rank_pattern, rank_of)},
        {"alpha_pattern", patterns(options_.alpha_pattern, alpha_of)},
        {"lora_dropout", options_.dropout},
        {"use_rslora", options_.rslora},
        {"use_dora", options_.dora},
        {"target_modules", target_modules_},
        {"bias", attune::name_of(options_.bias, biases)},
        {"lora_bias", options_.lora_bias},
        {"fan_in_fan_out", attune::nn::stored_transposed(layers_)},
    };
    if (splits_base() && !doubled)
      config["init_lora_weights"] = attune::name_of(options_.init, inits);
    return config;
  }

  /// The base is what is left of it beside the start of the change.
  bool splits_base() const { return options_.init == Init::pissa || options_.init == Init::olora; }

  LowRank* delta_of(const Linear& layer) const { return own_change<LowRank>(layer); }

  template <class Change, class Layer>
  Change* own_change(const Layer& layer) const {
    for (const auto& delta : layer.deltas())
      if (auto* found = dynamic_cast<Change*>(delta.get()); found && found->owner == owner_)
        return found;
    ATTUNE_ASSERT(false, "a target without its change: {} deltas", layer.deltas().size());
  }

  /// PEFT reads a pattern as a regular expression for the end of a name.
  template <class Convert>
  static ordered_json patterns(const attune::NumberMap& given, Convert convert) {
    auto json = ordered_json::object();
    for (const auto& [pattern, value] : given) {
      std::string expression;
      for (const char c : pattern)
        expression += c == '*' ? ".*" : c == '.' ? "\\." : std::string(1, c);
      json[expression] = convert(value);
    }
    return json;
  }

  static std::optional<double> matching(const attune::NumberMap& patterns,
                                        const std::string& name) {
    for (const auto& [pattern, value] : patterns)
      if (attune::nn::name_matches(pattern, name)) return value;
    return std::nullopt;
  }

  void check_patterns() const {
    for (const auto& [option, patterns] :
         {std::pair("strategy.rank_pattern", &options_.rank_pattern),
          std::pair("strategy.alpha_pattern", &options_.alpha_pattern)})
      for (const auto& [pattern, value] : *patterns) {
        attune::nn::select_names({pattern}, names_, option);
        if (!(value > 0 && value <= 1e9) ||
            (patterns == &options_.rank_pattern && value != std::floor(value)))
          attune::fail("{} has {} for \"{}\": give a {} above 0 and at most 1e9", option, value,
                       pattern, patterns == &options_.rank_pattern ? "whole number" : "number");
      }
  }

  /// What a layer [out, in] gets.
  Shape shape_for(const std::string& name, std::int64_t out, std::int64_t in) const {
    const auto rank = static_cast<std::int64_t>(
        matching(options_.rank_pattern, name).value_or(static_cast<double>(options_.rank)));
    const auto most = std::min(in, out);
    if (rank > most)
      attune::fail(
          "strategy.rank is {}, but {} is {} x {}: set rank to at most {}, or remove that layer "
          "from strategy.targets",
          rank, name, out, in, most);
    const double alpha = matching(options_.alpha_pattern, name).value_or(options_.alpha);
    const double r = static_cast<double>(rank);
    return {rank, alpha, alpha / (options_.rslora ? std::sqrt(r) : r), options_.dropout,
            options_.lora_bias};
  }

  void adapt(attune::ModelView& view, const std::string& name, Conv2d& convolution) const {
    if (convolution.options().groups > 1)
      attune::fail(
          "strategy.targets contains {}, a convolution with {} groups, which LoRA does not "
          "support: remove it",
          name, convolution.options().groups);
    if (options_.lora_bias)
      attune::fail(
          "strategy.targets contains {}, a convolution, but strategy.lora_bias supports only "
          "linear layers: remove one of them",
          name);
    if (options_.dora || options_.init != Init::standard)
      attune::fail(
          "strategy.targets contains {}, but strategy.{} supports only linear layers: remove one "
          "of them",
          name, options_.dora ? "dora" : "init");
    view.add_delta(convolution, "lora",
                   std::make_shared<LowRankConvolution>(
                       convolution,
                       shape_for(name, convolution.weight.size(0), convolution.weight[0].numel())));
  }

  void adapt(attune::ModelView& view, const std::string& name, Linear& linear) const {
    const auto shape = shape_for(name, linear.out(), linear.in());
    const auto rank = shape.rank;
    if (options_.init == Init::orthogonal && rank % 2 != 0)
      attune::fail("strategy.init = \"orthogonal\" needs an even rank, but {} has {}", name, rank);
    if (splits_base() && linear.packed())
      attune::fail(
          "strategy.init = \"{}\" changes the base's weights, which are already quantized: list "
          "'quantize' after 'lora', or remove init",
          attune::name_of(options_.init, inits));
    view.add_delta(linear, "lora", make(linear, shape));
  }

  std::shared_ptr<LowRank> make(Linear& linear, const Shape& shape) const {
    if (options_.init == Init::pissa)
      return std::make_shared<Split>(linear, shape, principal_components);
    if (options_.init == Init::olora)
      return std::make_shared<Split>(linear, shape, orthonormal_part);
    const auto delta = options_.dora ? std::make_shared<Decomposed>(linear, shape)
                                     : std::make_shared<LowRank>(linear, shape);
    if (options_.init == Init::orthogonal) start_orthogonal(*delta);
    return delta;
  }

  void train_biases(attune::ModelView& view) const {
    if (options_.bias == Bias::lora_only) {
      for (const auto& [name, linear] : layers_)
        if (linear->bias.defined()) view.train(linear->bias);
      for (const auto& [name, convolution] : convolutions_)
        if (convolution->bias.defined()) view.train(convolution->bias);
    } else if (options_.bias == Bias::all) {
      for (const auto& parameter : view.model().module().named_parameters())
        if (parameter.key().ends_with("bias")) view.train(parameter.value());
    }
  }

  /// Biases of adapted layers lie, for PEFT, in the layer it has wrapped.
  void add_biases(std::vector<NamedTensor>& tensors, attune::Model& model) const {
    if (options_.bias == Bias::none) return;
    for (const auto& parameter : model.module().named_parameters()) {
      const auto& name = parameter.key();
      if (!name.ends_with(".bias") || name.ends_with(".lora.bias") ||
          !parameter.value().requires_grad())
        continue;
      const auto module = name.substr(0, name.size() - 5);
      const bool adapted = std::ranges::find(names_, module) != names_.end();
      const bool saved =
          std::ranges::find(saved_, module) != saved_.end() || in_head(model, module);
      if (!saved)
        tensors.emplace_back(
            attune::nn::peft_prefix(module) + (adapted ? "base_layer.bias" : "bias"),
            parameter.value());
    }
  }

  void train_saved(attune::ModelView& view) {
    if (options_.save.empty()) return;
    auto& model = view.model();
    tied_ = attune::nn::tied_head(model);
    std::vector<std::string> names;
    for (const auto& item : model.module().named_modules("", false)) {
      const auto* module = item.value().get();
      const bool is_tied = tied_ && item.key() == tied_->head;
      if (!attune::nn::is_delta(*module) && (is_tied || !module->parameters(false).empty()))
        names.push_back(item.key());
    }
    saved_ = attune::nn::select_names(options_.save, names, "strategy.save");
    save_tied();
    for (const auto& name : saved_) {
      if (std::ranges::find(names_, name) != names_.end())
        attune::fail(
            "strategy.save and strategy.targets both contain {}: remove it from one of them", name);
      for (const auto& parameter : module_named(model, name)->parameters(false))
        view.train(parameter);
    }
    // a classifier's head is saved anyway
    std::erase_if(saved_, [&](const std::string& name) { return in_head(model, name); });
  }

  /// PEFT copies each module that it trains, so that tied ones part there: both are named, and both
  /// get the tensor.
  void save_tied() {
    if (!tied_) return;
    const auto is_saved = [&](const std::string& name) {
      return std::ranges::find(saved_, name) != saved_.end();
    };
    const bool has_embedding = is_saved(tied_->embedding);
    const bool has_head = is_saved(tied_->head);
    if (has_embedding && !has_head) saved_.push_back(tied_->head);
    if (has_head && !has_embedding) saved_.push_back(tied_->embedding);
  }

  void add_saved(std::vector<NamedTensor>& tensors, const std::string& module,
                 attune::Model& model) const {
    const bool is_tied = tied_ && module == tied_->head;
    for (const auto& parameter :
         module_named(model, is_tied ? tied_->embedding : module)->named_parameters())
      tensors.emplace_back(attune::nn::peft_prefix(module) + parameter.key(), parameter.value());
  }

  /// A head that shares the embedding's weight shares its rows.
  void train_rows(attune::ModelView& view) {
    if (!options_.token_rows.empty()) train_rows_of_embedding(view);
    if (!options_.head_rows.empty()) train_rows_of_head(view);
  }

  void train_rows_of_embedding(attune::ModelView& view) {
    auto& model = view.model();
    const auto [name, embedding] = attune::nn::token_embedding(model);
    check_not_saved(name, "strategy.token_rows");
    const auto ids = row_ids(options_.token_rows, embedding->weight.size(0), "strategy.token_rows");
    const auto rows = std::make_shared<EmbeddingRows>(*embedding, ids);
    view.add_delta(*embedding, "lora", rows);
    rows_.push_back({name, options_.token_rows, rows->rows});
    if (attune::nn::tied_head(model))
      view.add_delta(model.projection(), "lora", std::make_shared<HeadRows>(*rows));
  }

  void train_rows_of_head(attune::ModelView& view) {
    auto& model = view.model();
    if (model.spec().task != attune::Task::next_token)
      attune::fail(
          "strategy.head_rows is for models that predict tokens: a classifier's head is trained in "
          "full");
    if (attune::nn::tied_head(model)) {
      if (options_.head_rows == options_.token_rows) return;
      attune::fail(
          "strategy.head_rows: the head of this model shares the weight of its token embedding: "
          "list the tokens in strategy.token_rows");
    }
    auto& head = model.projection();
    const auto layers = attune::nn::linears(model.module());
    const auto name = std::ranges::find(layers, &head, [](const auto& named) {
                        return named.second.get();
                      })->first;
    check_not_saved(name, "strategy.head_rows");
    const auto rows = std::make_shared<HeadRows>(
        head, row_ids(options_.head_rows, head.out(), "strategy.head_rows"));
    view.add_delta(head, "lora", rows);
    rows_.push_back({name, options_.head_rows, rows->values});
  }

  void check_not_saved(const std::string& name, const char* option) const {
    if (std::ranges::find(saved_, name) != saved_.end())
      attune::fail("strategy.save and {} both train rows of {}: remove it from one of them", option,
                   name);
  }

  /// Rows of the embedding alone are a list for PEFT.
  void add_rows(ordered_json& config, std::vector<NamedTensor>& tensors) const {
    if (rows_.empty()) return;
    for (const auto& rows : rows_) {
      config["trainable_token_indices"][attune::last_part(rows.module)] = rows.ids;
      tensors.emplace_back(
          attune::nn::peft_prefix(rows.module) + "token_adapter.trainable_tokens_delta",
          rows.values);
    }
    const bool is_embedding_alone = rows_.size() == 1 && !options_.token_rows.empty();
    if (is_embedding_alone) config["trainable_token_indices"] = options_.token_rows;
  }

  static bool in_head(const attune::Model& model, const std::string& module) {
    return std::ranges::any_of(model.head_modules(), [&](const std::string& head) {
      return module == head || module.starts_with(head + ".");
    });
  }

  static std::shared_ptr<torch::nn::Module> module_named(attune::Model& model,
                                                         const std::string& name) {
    return model.module().named_modules("", false)[name];
  }

  /// Doubled: the change since the start as one of twice the rank, B A - B0 A0 = [B, -B0] [A; A0].
  static void add_tensors(std::vector<NamedTensor>& tensors, const std::string& prefix,
                          const LowRank& delta, bool doubled) {
    if (doubled) {
      const auto& split = dynamic_cast<const Split&>(delta);
      tensors.emplace_back(prefix + "lora_A.weight", at::cat({delta.a.detach(), split.first_a}));
      tensors.emplace_back(prefix + "lora_B.weight",
                           at::cat({delta.b.detach(), -split.first_b}, 1));
      return;
    }
    tensors.emplace_back(prefix + "lora_A.weight", delta.a);
    tensors.emplace_back(prefix + "lora_B.weight", delta.b);
    if (delta.bias.defined()) tensors.emplace_back(prefix + "lora_B.bias", delta.bias);
    if (const auto* decomposed = dynamic_cast<const Decomposed*>(&delta))
      tensors.emplace_back(prefix + "lora_magnitude_vector", decomposed->magnitude);
  }

  Options options_;
  std::int64_t owner_ = 0;
  std::vector<attune::nn::NamedLinear> layers_;
  std::vector<attune::nn::NamedConvolution> convolutions_;
  // names_: of both
  std::vector<std::string> names_;
  std::vector<std::string> target_modules_;
  std::vector<std::string> saved_;
  // absent: the head has a weight of its own
  std::optional<attune::nn::TiedHead> tied_;
  struct TrainedRows {
    std::string module;
    std::vector<std::int64_t> ids;
    at::Tensor values;
  };
  std::vector<TrainedRows> rows_;
};

}  // namespace

ATTUNE_PLUGIN("lora", "2.0.0", registry) {
  registry.strategy<Lora>("lora",
                          "low-rank adapters on frozen layers, saved for PEFT: LoRA, rsLoRA, "
                          "LoRA+, DoRA, PiSSA, OLoRA");
}
