#include <attune/adamw.hpp>
#include <torch/torch.h>

#include <cmath>

#include "kernels/rows.hpp"
#include "train/stretches.hpp"

namespace attune {
namespace {

enum State : std::size_t { first_moment, second_moment, count_of_updates };

kernels::AdamW kernel_of(const AdamW::Options& options, const UpdateRates& rates, double count) {
  const auto in_float = [](double value) { return static_cast<float>(value); };
  const double root = std::sqrt(1 - std::pow(options.beta2, count));
  kernels::AdamW kernel;
  kernel.scale = in_float(rates.gradient_scale);
  kernel.keep = in_float(1 - rates.learning_rate * rates.weight_decay);
  kernel.beta1 = in_float(options.beta1);
  kernel.beta2 = in_float(options.beta2);
  kernel.rest1 = in_float(1 - options.beta1);
  kernel.rest2 = in_float(1 - options.beta2);
  kernel.rate = in_float(rates.learning_rate / (1 - std::pow(options.beta1, count)));
  kernel.root = in_float(1 / root);
  kernel.epsilon = in_float(options.epsilon);
  return kernel;
}

}  // namespace

void AdamW::Options::describe(Schema<Options>& s) {
  s.key("beta1", &Options::beta1, "decay rate of the running mean of gradients")
      .at_least(0)
      .below(1);
  s.key("beta2", &Options::beta2, "decay rate of the running mean of squared gradients")
      .at_least(0)
      .below(1);
  s.key("epsilon", &Options::epsilon, "term added to the denominator for numerical stability")
      .above(0);
}

std::vector<StateSpec> AdamW::state(const ParameterSpec& parameter) const {
  return {{"exp_avg", parameter.sizes, parameter.dtype},
          {"exp_avg_sq", parameter.sizes, parameter.dtype},
          {"step", {}, at::kFloat}};
}

void AdamW::update(std::vector<ParameterUpdate>& parameters, const UpdateRates& rates) {
  std::vector<ParameterUpdate*> rows;
  std::vector<ParameterUpdate*> elsewhere;
  for (auto& each : parameters)
    (train::serves_kernels(each.parameter) ? rows : elsewhere).push_back(&each);
  if (!rows.empty()) update_rows(rows, rates);
  if (!elsewhere.empty()) update_elsewhere(elsewhere, rates);
}

std::vector<AdamW::Moments>& AdamW::moments_of(const ParameterUpdate& parameter) {
  auto& moments = moments_[parameter.state[first_moment].const_data_ptr()];
  moments.resize(train::stretches_of(parameter.parameter.numel()));
  return moments;
}

/// Where gradient and moments are zero, as in most rows of an embedding, nothing but the decay is
/// left to do: exactly what the formula gives.
void AdamW::update_rows(const std::vector<ParameterUpdate*>& parameters, const UpdateRates& rates) {
  std::vector<std::int64_t> sizes;
  std::vector<kernels::AdamW> kernels_of;
  std::vector<std::vector<Moments>*> all_moments;
  for (auto* each : parameters) {
    sizes.push_back(each->parameter.numel());
    kernels_of.push_back(
        kernel_of(options_, rates, each->state[count_of_updates].add_(1).item<double>()));
    all_moments.push_back(&moments_of(*each));
  }
  train::for_each_stretch(
      sizes, [&](std::size_t index, std::size_t part, std::int64_t from, std::size_t count) {
        const auto& each = *parameters[index];
        const float* gradient = each.gradient.const_data_ptr<float>() + from;
        float* parameter = each.parameter.data_ptr<float>() + from;
        float* first = each.state[first_moment].data_ptr<float>() + from;
        float* second = each.state[second_moment].data_ptr<float>() + from;
        auto& moments = (*all_moments[index])[part];
        if (moments != Moments::moving && kernels::is_zero(gradient, count)) {
          if (moments == Moments::unknown)
            moments = kernels::is_zero(first, count) && kernels::is_zero(second, count)
                          ? Moments::zero
                          : Moments::moving;
          if (moments == Moments::zero)
            return kernels::scale(parameter, kernels_of[index].keep, count);
        }
        moments = Moments::moving;
        kernels::adamw(kernels_of[index], gradient, parameter, first, second, count);
      });
}

void AdamW::update_elsewhere(const std::vector<ParameterUpdate*>& parameters,
                             const UpdateRates& rates) const {
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> first;
  std::vector<at::Tensor> second;
  std::vector<at::Tensor> counts;  // where the parameters are
  for (const auto* each : parameters) {
    values.push_back(each->parameter);
    gradients.push_back(each->gradient);
    first.push_back(each->state[first_moment]);
    second.push_back(each->state[second_moment]);
    const double count = each->state[count_of_updates].add_(1).item<double>();
    counts.push_back(at::full({}, count, each->parameter.options().dtype(at::kFloat)));
  }
  if (rates.gradient_scale != 1) at::_foreach_mul_(gradients, rates.gradient_scale);
  at::_fused_adamw_(values, gradients, first, second, {}, counts, rates.learning_rate,
                    options_.beta1, options_.beta2, rates.weight_decay, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
}

}  // namespace attune
