// Evaluation of the base model before tuning. The result is the same for all runs with the same
// base, data and loss, so it is computed once and cached.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "evaluate/evaluate.hpp"
#include "train/interruption.hpp"
#include "train/session.hpp"

namespace attune::train {

struct BaseEvaluation {
  Metrics metrics;
  std::int64_t without_target = 0;  // validation samples without a target
  bool is_remembered = false;       // taken from the cache
};

/// Restores the base's own values for the lifetime of this object, where the session starts from an
/// adapter with other values. Only for sessions that have not trained yet. Changes added by
/// strategies are disabled separately, by ForwardContext::base_alone().
class UntrainedBase {
 public:
  explicit UntrainedBase(const Session& session);
  ~UntrainedBase();
  UntrainedBase(const UntrainedBase&) = delete;
  UntrainedBase& operator=(const UntrainedBase&) = delete;

 private:
  // parameters, with the adapter's values for them
  std::vector<std::pair<at::Tensor, at::Tensor>> adapted_;
};

/// Returns the base's evaluation from the cache (core/cache.hpp), or computes it with `evaluate`
/// and caches it. If another run is evaluating the same base, waits for its result. The session's
/// model must be the unmodified base. Absent if interrupted. Collective.
std::optional<BaseEvaluation> evaluate_base(
    const Session& session, Interruption& interruption,
    const std::function<std::optional<BaseEvaluation>()>& evaluate);

/// Hash of everything the evaluation depends on: values, config and head of the base; the
/// validation samples used; options of model and data set; precision and device; the code; the
/// declared metrics; and the strategies that define the loss, change the base or declare metrics.
std::string key_of_base_evaluation(const Session& session);

}  // namespace attune::train
