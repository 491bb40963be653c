#include <attune/error.hpp>
#include <torch/torch.h>

#include <cmath>

#include "testing/toy_run.hpp"

namespace attune::testing {
namespace {

using Make = std::function<std::shared_ptr<Optimizer>()>;

constexpr UpdateRates rates{.learning_rate = 1e-2, .weight_decay = 0.1, .gradient_scale = 0.5};

/// A parameter with its state, updated by itself.
struct Trained {
  ParameterSpec spec;
  at::Tensor parameter;
  std::vector<at::Tensor> state;

  Trained(const Optimizer& optimizer, ParameterSpec given, const at::Tensor& values)
      : spec(std::move(given)), parameter(values.clone()) {
    for (const auto& kept : optimizer.state(spec))
      state.push_back(torch::zeros(kept.sizes, at::TensorOptions().dtype(kept.dtype)));
  }
  void update(Optimizer& optimizer, const at::Tensor& gradient) {
    const torch::NoGradGuard no_grad;
    std::vector<ParameterUpdate> updates{{spec, parameter, gradient.clone(), state}};
    optimizer.update(updates, rates);
  }
};

at::Tensor gradient_of(const ParameterSpec& spec, int step) {
  torch::manual_seed(50 + step);
  return torch::randn(spec.sizes).to(spec.dtype);
}

void check_updates(const Make& make, const ParameterSpec& spec) {
  torch::manual_seed(3);
  const at::Tensor values = torch::randn(spec.sizes).to(spec.dtype);
  const auto what = fmt::format("a {} of shape {}", c10::toString(spec.dtype),
                                c10::str(at::IntArrayRef(spec.sizes)));
  const auto first = make();
  Trained ours(*first, spec, values);
  Trained theirs(*first, spec, values);
  for (int step = 0; step < 4; ++step) {
    ours.update(*first, gradient_of(spec, step));
    theirs.update(*make(), gradient_of(spec, step));  // one that has not seen the earlier updates
    check(same_bits(ours.parameter, theirs.parameter),
          fmt::format("update {} of {} depends on what state() declares alone", step + 1, what));
  }
  check(ours.parameter.isfinite().all().item<bool>(), what + " stays finite");
  check(!same_bits(ours.parameter, values), what + " is changed by its updates");
}

/// Pieces of one dimension, as ranks hold them.
void check_pieces(const Make& make) {
  const ParameterSpec whole{"block.w", {6, 500}, at::kFloat, true};
  torch::manual_seed(3);
  const at::Tensor values = torch::randn(whole.sizes);
  const auto optimizer = make();
  Trained one(*optimizer, whole, values);
  const auto shared = make();
  std::vector<Trained> pieces;
  for (const std::int64_t first : {0, 1024})
    pieces.emplace_back(*shared,
                        ParameterSpec{whole.name, {first == 0 ? 1024 : 1976}, whole.dtype, true},
                        values.flatten().slice(0, first, first == 0 ? 1024 : 3000));
  for (int step = 0; step < 3; ++step) {
    const auto gradient = gradient_of(whole, step);
    one.update(*optimizer, gradient);
    pieces[0].update(*shared, gradient.flatten().slice(0, 0, 1024));
    pieces[1].update(*shared, gradient.flatten().slice(0, 1024, 3000));
  }
  check(same_bits(one.parameter.flatten(), torch::cat({pieces[0].parameter, pieces[1].parameter})),
        "a parameter in two pieces is updated as a whole one: is_elementwise() says so");
}

}  // namespace

void check_optimizer(const Make& make) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& sizes :
         std::vector<std::vector<std::int64_t>>{{5, 7}, {7}, {}, {3, 2, 4}, {4, 3, 2, 2}})
      check_updates(make, {"block.w", sizes, dtype, true});
  check_updates(make, {"head", {5, 7}, at::kFloat, false});
  if (make()->is_elementwise()) check_pieces(make);
}

void check_schedule(const std::function<std::shared_ptr<Schedule>()>& make) {
  const auto schedule = make();
  for (const auto& [steps, warmup] : {std::pair(1, 0), {10, 0}, {10, 3}, {100, 10}}) {
    std::vector<double> factors;
    for (std::int64_t step = warmup; step < steps; ++step) {
      factors.push_back(schedule->factor({.step = step, .steps = steps, .warmup = warmup}));
      check(std::isfinite(factors.back()) && factors.back() >= 0,
            fmt::format("the factor of step {} of {} is a number of at least 0 (it is {})", step,
                        steps, factors.back()));
    }
    const auto other = make();
    for (std::int64_t step = steps - 1; step >= warmup; --step)
      check(
          other->factor({.step = step, .steps = steps, .warmup = warmup}) ==
              factors[static_cast<std::size_t>(step - warmup)],
          fmt::format("the factor of step {} is the same whatever was asked for before it", step));
  }
}

}  // namespace attune::testing
