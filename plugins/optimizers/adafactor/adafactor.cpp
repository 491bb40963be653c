// Adafactor (Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory
// Cost", arXiv:1804.04235, algorithms 4 and 5), as transformers.optimization.Adafactor computes it
// with relative_step=False: the learning rate is the schedule's.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <cmath>

namespace {

/// Root mean square.
at::Tensor rms(const at::Tensor& x) { return x.norm() / std::sqrt(static_cast<double>(x.numel())); }

/// With g the scaled gradient, in update t = 1, 2, ...:
///
///     beta2 = 1 - t^-decay_rate
///     v     = beta2 v + (1 - beta2) (g^2 + epsilon1)
///     u     = g / sqrt(v);  u = u / max(1, RMS(u) / clip_threshold)
///     rate  = rate max(epsilon2, RMS(p))                      with scale_parameter
///     p     = p - rate decay p - rate u                       or beta1's running mean of rate u
///
/// Of a parameter with two dimensions or more, v is the product of the means over its last
/// dimension (exp_avg_sq_row) and over the one before (exp_avg_sq_col), divided by the mean of the
/// first.
class Adafactor final : public attune::Optimizer {
 public:
  struct Options {
    double decay_rate = 0.8;
    double clip_threshold = 1.0;
    double epsilon1 = 1e-30;
    double epsilon2 = 1e-3;
    double beta1 = 0;
    bool scale_parameter = false;
    static void describe(attune::Schema<Options>& s) {
      s.key("decay_rate", &Options::decay_rate,
            "exponent of the decay of squared gradients, which is 1 - t^-decay_rate in update t")
          .range(0, 1);
      s.key("clip_threshold", &Options::clip_threshold,
            "maximum root mean square of a parameter's update before it is multiplied by the "
            "learning rate")
          .above(0);
      s.key("epsilon1", &Options::epsilon1, "regularization term added to the squared gradients")
          .at_least(0);
      s.key("epsilon2", &Options::epsilon2,
            "lower bound of the parameter's root mean square, used with `scale_parameter`")
          .at_least(0);
      s.key("beta1", &Options::beta1,
            "decay rate of the running mean of updates; 0: no running mean")
          .at_least(0)
          .below(1);
      s.key("scale_parameter", &Options::scale_parameter,
            "multiply the learning rate by the root mean square of the parameter");
    }
  };
  explicit Adafactor(Options options) : options_(options) {}

  std::vector<attune::StateSpec> state(const attune::ParameterSpec& parameter) const override {
    std::vector<attune::StateSpec> kept;
    if (options_.beta1 > 0) kept.push_back({"exp_avg", parameter.sizes});
    if (parameter.sizes.size() < 2) {
      kept.push_back({"exp_avg_sq", parameter.sizes});
    } else {
      auto without_last = parameter.sizes;
      auto without_second_last = parameter.sizes;
      without_last.pop_back();
      without_second_last.erase(without_second_last.end() - 2);
      kept.push_back({"exp_avg_sq_row", without_last});
      kept.push_back({"exp_avg_sq_col", without_second_last});
    }
    kept.push_back({"step", {}});
    return kept;
  }

  void update(std::vector<attune::ParameterUpdate>& parameters,
              const attune::UpdateRates& rates) override {
    for (auto& each : parameters) update(each, rates);
  }

 private:
  void update(attune::ParameterUpdate& each, const attune::UpdateRates& rates) const {
    const auto gradient = each.gradient.to(at::kFloat) * rates.gradient_scale;
    auto value = each.parameter.to(at::kFloat);  // itself, if it is of that type
    const double count = each.state.back().add_(1).item<double>();
    const double rate = rates.learning_rate;
    // a tensor: its value is not worth a wait for the device
    const at::Tensor scale = options_.scale_parameter ? rms(value).clamp_min(options_.epsilon2)
                                                      : at::ones({}, at::kFloat);

    auto change = preconditioned(gradient, each.state, 1 - std::pow(count, -options_.decay_rate));
    change.div_((rms(change) / options_.clip_threshold).clamp_min(1)).mul_(scale * rate);
    if (options_.beta1 > 0)
      change = each.state[0].mul_(options_.beta1).add_(change, 1 - options_.beta1);
    if (rates.weight_decay > 0) value.sub_(value * (scale * (rates.weight_decay * rate)));
    value.sub_(change);
    if (!value.is_same(each.parameter)) each.parameter.copy_(value);
  }

  /// gradient / sqrt(v), after v has taken it in.
  at::Tensor preconditioned(const at::Tensor& gradient, const std::vector<at::Tensor>& state,
                            double beta2) const {
    const auto squares = gradient.square().add_(options_.epsilon1);
    const auto take = [&](const at::Tensor& mean, const at::Tensor& newest) {
      mean.mul_(beta2).add_(newest, 1 - beta2);
    };
    const std::size_t first = options_.beta1 > 0 ? 1 : 0;
    if (gradient.dim() < 2) {
      take(state[first], squares);
      return state[first].rsqrt().mul_(gradient);
    }
    const auto& row = state[first];
    const auto& column = state[first + 1];
    take(row, squares.mean(-1));
    take(column, squares.mean(-2));
    const auto of_row = (row / row.mean(-1, /*keepdim=*/true)).rsqrt_().unsqueeze(-1);
    return (of_row * column.unsqueeze(-2).rsqrt()).mul_(gradient);
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("adafactor", "1.0.0", registry) {
  registry.optimizer<Adafactor>(
      "adafactor",
      "Adafactor: stores second moments of a matrix as one row and one column, to save memory");
}
