// Stochastic gradient descent with momentum (Sutskever et al. 2013, "On the importance of
// initialization and momentum in deep learning"), as torch.optim.SGD computes it.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class Sgd final : public attune::Optimizer {
 public:
  struct Options {
    double momentum = 0;
    bool nesterov = false;
    bool coupled_decay = false;
    static void describe(attune::Schema<Options>& s) {
      s.key("momentum", &Options::momentum,
            "decay rate of the accumulated gradients; 0: no momentum")
          .at_least(0)
          .below(1);
      s.key("nesterov", &Options::nesterov, "use Nesterov momentum");
      s.key("coupled_decay", &Options::coupled_decay,
            "use L2 regularization: add train.weight_decay times the parameter to the gradient, "
            "instead of decoupled weight decay");
    }
  };
  explicit Sgd(Options options) : options_(options) {
    if (options_.nesterov && options_.momentum == 0)
      attune::fail("'nesterov' needs a 'momentum' above 0");
  }

  bool is_elementwise() const override { return true; }
  std::vector<attune::StateSpec> state(const attune::ParameterSpec& parameter) const override {
    if (options_.momentum == 0) return {};
    return {{"momentum", parameter.sizes, parameter.dtype}};
  }

  void update(std::vector<attune::ParameterUpdate>& parameters,
              const attune::UpdateRates& rates) override {
    auto gradients = attune::scaled_gradients(parameters, rates);
    std::vector<at::Tensor> values;
    std::vector<at::Tensor> momenta;
    for (const auto& each : parameters) {
      values.push_back(each.parameter);
      if (options_.momentum > 0) momenta.push_back(each.state[0]);
    }
    if (rates.weight_decay > 0) decay(values, gradients, rates);
    if (options_.momentum > 0) {
      at::_foreach_mul_(momenta, options_.momentum);
      at::_foreach_add_(momenta, gradients);
    }
    if (options_.nesterov) at::_foreach_add_(gradients, momenta, options_.momentum);
    const bool takes_gradients = options_.momentum == 0 || options_.nesterov;
    at::_foreach_add_(values, takes_gradients ? gradients : momenta, -rates.learning_rate);
  }

 private:
  void decay(const std::vector<at::Tensor>& values, const std::vector<at::Tensor>& gradients,
             const attune::UpdateRates& rates) const {
    if (options_.coupled_decay)
      at::_foreach_add_(gradients, values, rates.weight_decay);
    else
      at::_foreach_mul_(values, 1 - rates.learning_rate * rates.weight_decay);
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("sgd", "1.0.0", registry) {
  registry.optimizer<Sgd>("sgd", "stochastic gradient descent with optional momentum");
}
