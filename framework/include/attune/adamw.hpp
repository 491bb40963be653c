// AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv:1711.05101,
// algorithm 2). Other optimizers use it for the parameters that they do not update themselves.
#pragma once
#include <attune/api.hpp>
#include <attune/optimizer.hpp>
#include <attune/schema.hpp>

#include <unordered_map>

ATTUNE_API_BEGIN
namespace attune {

/// Decoupled weight decay. g is the scaled gradient and t = 1, 2, ... counts the updates:
///
///     m = beta1 m + (1 - beta1) g
///     v = beta2 v + (1 - beta2) g^2
///     p = (1 - rate decay) p - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
///
/// State per parameter: exp_avg and exp_avg_sq with the parameter's sizes and dtype, and step, a
/// float32 scalar. A float32 parameter on the CPU is updated in one pass over memory; all others
/// use LibTorch's fused kernel.
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
  /// Whether the moments of one stretch of a parameter are all zero. `unknown` means that update()
  /// must read them to find out.
  enum class Moments : char { unknown, zero, moving };

  void update_rows(const std::vector<ParameterUpdate*>& parameters, const UpdateRates& rates);
  void update_elsewhere(const std::vector<ParameterUpdate*>& parameters,
                        const UpdateRates& rates) const;
  std::vector<Moments>& moments_of(const ParameterUpdate& parameter);

  Options options_;
  std::unordered_map<const void*, std::vector<Moments>> moments_;  // key: data pointer of exp_avg
};

}  // namespace attune
ATTUNE_API_END
