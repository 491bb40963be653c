// Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
// https://kellerjordan.github.io/posts/muon), as torch.optim.Muon computes it. What is no hidden
// matrix is left to AdamW.
#include <attune/adamw.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

enum class Adjust { match_rms_adamw, original };
enum class Precision { float32, bfloat16 };

constexpr double tiny_norm = 1e-7;

/// Nearly U V^T of x = U S V^T, by the quintic Newton-Schulz iteration with Jordan's coefficients:
/// singular values end between 0.7 and 1.2.
at::Tensor orthogonalized(const at::Tensor& x, std::int64_t iterations, at::ScalarType dtype) {
  const bool is_tall = x.size(0) > x.size(1);
  auto y = x.to(dtype, /*non_blocking=*/false, /*copy=*/true);
  if (is_tall) y = y.t();
  y.div_(y.norm().clamp_min(tiny_norm));
  for (std::int64_t i = 0; i < iterations; ++i) {
    const auto gram = y.mm(y.t());
    const auto polynomial = at::addmm(gram, gram, gram, /*beta=*/-4.7750, /*alpha=*/2.0315);
    y = at::addmm(y, polynomial, y, /*beta=*/3.4445);
  }
  return is_tall ? y.t() : y;
}

/// With g the scaled gradient and m what is kept (momentum_buffer), for every matrix inside a
/// block:
///
///     m = momentum m + (1 - momentum) g
///     u = orthogonalized(momentum m + (1 - momentum) g)    or of m, without nesterov
///     p = (1 - rate decay) p - adjusted(rate) u
///
/// Convolutions [out, in, k, k] are taken as matrices [out, in k k].
class Muon final : public attune::Optimizer {
 public:
  struct Options {
    double momentum = 0.95;
    bool nesterov = true;
    std::int64_t iterations = 5;
    Adjust adjust = Adjust::match_rms_adamw;
    Precision precision = Precision::float32;
    double adamw_learning_rate = 1;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-10;
    static void describe(attune::Schema<Options>& s) {
      s.key("momentum", &Options::momentum, "decay rate of the running mean of gradients")
          .at_least(0)
          .below(1);
      s.key("nesterov", &Options::nesterov, "use Nesterov momentum");
      s.key("iterations", &Options::iterations, "number of Newton-Schulz iterations").range(1, 99);
      s.key("adjust", &Options::adjust,
            "learning-rate factor of a [rows, columns] matrix; match_rms_adamw: 0.2 sqrt(max(rows, "
            "columns)), which suits rates tuned for AdamW; original: sqrt(max(1, rows / columns))",
            {{"match_rms_adamw", Adjust::match_rms_adamw}, {"original", Adjust::original}});
      s.key("precision", &Options::precision,
            "data type of the Newton-Schulz iteration; torch.optim.Muon uses bfloat16",
            {{"float32", Precision::float32}, {"bfloat16", Precision::bfloat16}});
      s.key("adamw_learning_rate", &Options::adamw_learning_rate,
            "learning rate of the parameters that AdamW updates, as a multiple of "
            "train.learning_rate")
          .above(0);
      s.key("beta1", &Options::beta1, "decay rate of AdamW's running mean of gradients")
          .at_least(0)
          .below(1);
      s.key("beta2", &Options::beta2, "decay rate of AdamW's running mean of squared gradients")
          .at_least(0)
          .below(1);
      s.key("epsilon", &Options::epsilon,
            "term added to AdamW's denominator for numerical stability")
          .above(0);
    }
  };
  explicit Muon(Options options)
      : options_(std::move(options)), adamw_({options_.beta1, options_.beta2, options_.epsilon}) {}

  std::vector<attune::StateSpec> state(const attune::ParameterSpec& parameter) const override {
    if (!is_hidden_matrix(parameter)) return adamw_.state(parameter);
    return {{"momentum_buffer", parameter.sizes, parameter.dtype}};
  }

  void update(std::vector<attune::ParameterUpdate>& parameters,
              const attune::UpdateRates& rates) override {
    std::vector<attune::ParameterUpdate> matrices;
    std::vector<attune::ParameterUpdate> others;
    for (const auto& each : parameters)
      (is_hidden_matrix(each.spec) ? matrices : others).push_back(each);
    attune::scaled_gradients(matrices, rates);
    for (auto& each : matrices) update(each, rates);
    auto rates_of_others = rates;
    rates_of_others.learning_rate *= options_.adamw_learning_rate;
    if (!others.empty()) adamw_.update(others, rates_of_others);
  }

 private:
  /// One row or one column is a vector.
  static bool is_hidden_matrix(const attune::ParameterSpec& parameter) {
    if (!parameter.in_block || parameter.sizes.size() < 2) return false;
    std::int64_t columns = 1;
    for (std::size_t i = 1; i < parameter.sizes.size(); ++i) columns *= parameter.sizes[i];
    return parameter.sizes[0] > 1 && columns > 1;
  }

  double adjusted(double rate, const at::Tensor& matrix) const {
    const auto rows = static_cast<double>(matrix.size(0));
    const auto columns = static_cast<double>(matrix.size(1));
    if (options_.adjust == Adjust::original) return rate * std::sqrt(std::max(1.0, rows / columns));
    return rate * 0.2 * std::sqrt(std::max(rows, columns));
  }

  void update(attune::ParameterUpdate& each, const attune::UpdateRates& rates) const {
    auto& mean = each.state[0];
    mean.lerp_(each.gradient, 1 - options_.momentum);
    const auto direction =
        (options_.nesterov ? each.gradient.lerp(mean, options_.momentum) : mean).flatten(1);
    const auto dtype = options_.precision == Precision::bfloat16 ? at::kBFloat16 : at::kFloat;
    const auto change = orthogonalized(direction, options_.iterations, dtype);
    each.parameter.mul_(1 - rates.learning_rate * rates.weight_decay);
    each.parameter.add_(change.reshape(each.parameter.sizes()),
                        -adjusted(rates.learning_rate, direction));
  }

  Options options_;
  attune::AdamW adamw_;
};

}  // namespace

ATTUNE_PLUGIN("muon", "1.0.0", registry) {
  registry.optimizer<Muon>(
      "muon",
      "Muon: orthogonalized momentum for matrices inside blocks, AdamW for all other parameters");
}
