// AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv:1711.05101,
// algorithm 2), for every optimizer that leaves some parameters to it.
#pragma once
#include <attune/api.hpp>
#include <attune/optimizer.hpp>
#include <attune/schema.hpp>

#include <unordered_map>

ATTUNE_API_BEGIN
namespace attune {

/// With g the scaled gradient, in update t = 1, 2, ...:
///
///     m = beta1 m + (1 - beta1) g
///     v = beta2 v + (1 - beta2) g^2
///     p = (1 - rate decay) p - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
///
/// State: exp_avg and exp_avg_sq, of the parameter's sizes and dtype, and step, a float32 scalar.
/// float32 on the CPU is one pass over memory; anything else is LibTorch's fused kernel.
class AdamW : public Optimizer {
 public:
  struct Options {
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    static void describe(Schema<Options>& s);
  };
  explicit AdamW(Options options) : options_(options) {}

  bool is_elementwise() const override { return true; }
  std::vector<StateSpec> state(const ParameterSpec& parameter) const override;
  void update(std::vector<ParameterUpdate>& parameters, const UpdateRates& rates) override;

 private:
  /// Of a stretch of a parameter, whether its moments are all zero; read from them when it is
  /// unknown.
  enum class Moments : char { unknown, zero, moving };

  void update_rows(const std::vector<ParameterUpdate*>& parameters, const UpdateRates& rates);
  void update_elsewhere(const std::vector<ParameterUpdate*>& parameters,
                        const UpdateRates& rates) const;
  std::vector<Moments>& moments_of(const ParameterUpdate& parameter);

  Options options_;
  std::unordered_map<const void*, std::vector<Moments>> moments_;  // by where exp_avg lies
};

}  // namespace attune
ATTUNE_API_END
