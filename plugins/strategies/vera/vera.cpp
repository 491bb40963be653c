// VeRA (Kopiczko et al. 2024, arXiv:2310.11454, equation 2): one pair of random matrices for all
// layers; each layer trains two vectors.
#include <ATen/CPUGeneratorImpl.h>
#include <attune/adapter.hpp>
#include <attune/device.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace {

using attune::nn::Linear;

/// y + b * (B (d * (A dropout(x)))): A [rank, widest in] and B [widest out, rank] are shared and
/// frozen, of which the layer takes its part; d [rank] and b [out] train.
class SharedLowRank final : public attune::nn::Delta {
 public:
  SharedLowRank(const Linear& base, at::Tensor a, at::Tensor b, double first_d, double dropout)
      : a_(a.narrow(1, 0, base.in())), b_(b.narrow(0, 0, base.out())), dropout_(dropout) {
    lambda_d = register_parameter("d", at::full({a.size(0)}, first_d, a.options()));
    lambda_b = register_parameter("b", at::zeros({base.out()}, a.options()));
  }

  at::Tensor forward(const Linear&, const at::Tensor& x, const at::Tensor& y,
                     attune::ForwardContext& context) override {
    const auto as = [&](const at::Tensor& tensor) { return tensor.to(x.scalar_type()); };
    const at::Tensor narrowed = at::linear(context.dropout(x, dropout_), as(a_)) * as(lambda_d);
    return y + at::linear(narrowed, as(b_)) * as(lambda_b);
  }

  void merge(Linear& base) const override {
    base.weight.add_(at::mm(b_ * lambda_b.unsqueeze(1), a_ * lambda_d.unsqueeze(1)));
  }

  at::Tensor lambda_d;
  at::Tensor lambda_b;

 private:
  at::Tensor a_;
  at::Tensor b_;
  double dropout_;
};

class Vera final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t rank = 256;
    std::int64_t projection_seed = 0;
    double d_initial = 0.1;
    double dropout = 0;
    std::vector<std::string> targets = {"all-linear"};
    static void describe(attune::Schema<Options>& s) {
      s.key("rank", &Options::rank, "rank of the shared random matrices").range(1, 65536);
      s.key("targets", &Options::targets,
            "layers to adapt: \"all-linear\", or names of linear layers such as \"q_proj\"; '*' "
            "matches any characters");
      s.key("d_initial", &Options::d_initial, "initial value of the vector d");
      s.key("dropout", &Options::dropout,
            "dropout probability of the delta's input during training")
          .range(0, 0.9);
      s.key("projection_seed", &Options::projection_seed,
            "random seed of the shared random matrices")
          .at_least(0);
    }
  };
  explicit Vera(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    layers_ = attune::nn::choose_targets(view.model(), options_.targets);
    make_projections();
    for (const auto& [name, linear] : layers_) {
      deltas_.push_back(
          std::make_shared<SharedLowRank>(*linear, a_, b_, options_.d_initial, options_.dropout));
      view.add_delta(*linear, "vera", deltas_.back());
    }
    attune::nn::train_head(view);
  }

  /// A generator may change with LibTorch's version: the matrices are part of what a checkpoint
  /// means.
  std::vector<attune::NamedTensor> state(attune::Model&) override { return {{"A", a_}, {"B", b_}}; }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    std::vector<attune::NamedTensor> tensors{{"base_model.vera_A", a_}, {"base_model.vera_B", b_}};
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      tensors.emplace_back(attune::nn::peft_prefix(layers_[i].first) + "vera_lambda_d",
                           deltas_[i]->lambda_d);
      tensors.emplace_back(attune::nn::peft_prefix(layers_[i].first) + "vera_lambda_b",
                           deltas_[i]->lambda_b);
    }
    return attune::nn::peft_adapter(
        model,
        {{"peft_type", "VERA"},
         {"r", options_.rank},
         {"target_modules", attune::nn::peft_names(model, attune::nn::names_of(layers_))},
         {"projection_prng_key", options_.projection_seed},
         {"save_projection", true},
         {"vera_dropout", options_.dropout},
         {"d_initial", options_.d_initial},
         {"bias", "none"},
         {"fan_in_fan_out", attune::nn::stored_transposed(layers_)}},
        std::move(tensors));
  }

 private:
  /// Uniform as Kaiming's for each, A in +-sqrt(6 / in) and B in +-sqrt(6 / rank), and drawn one
  /// after the other from one generator, as in PEFT.
  void make_projections() {
    std::int64_t in = 0;
    std::int64_t out = 0;
    for (const auto& [name, linear] : layers_) {
      in = std::max(in, linear->in());
      out = std::max(out, linear->out());
    }
    auto random = at::make_generator<at::CPUGeneratorImpl>(
        static_cast<std::uint64_t>(options_.projection_seed));
    const auto drawn = [&](std::int64_t rows, std::int64_t columns) {
      const double bound = std::sqrt(6 / static_cast<double>(columns));
      const auto device = layers_.front().second->options().device();
      return attune::drawn_on_host(
          at::empty({rows, columns}, at::TensorOptions(at::kFloat).device(device)),
          [&](at::Tensor& values) { values.uniform_(-bound, bound, random); });
    };
    a_ = drawn(options_.rank, in);
    b_ = drawn(out, options_.rank);
  }

  Options options_;
  std::vector<attune::nn::NamedLinear> layers_;
  std::vector<std::shared_ptr<SharedLowRank>> deltas_;  // by layer
  at::Tensor a_;
  at::Tensor b_;
};

}  // namespace

ATTUNE_PLUGIN("vera", "1.0.0", registry) {
  registry.strategy<Vera>("vera",
                          "low-rank adapters with shared random matrices and two learned vectors "
                          "per layer, saved for PEFT (VeRA)");
}
