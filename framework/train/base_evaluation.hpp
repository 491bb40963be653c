// What the base model scores before it is tuned: the same for every run that has base, data and
// loss in common, and so computed once for all of them.
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
  std::int64_t without_target = 0;  // validation samples that have none
  bool is_remembered = false;       // it was not computed by this run
};

/// While it lives the model of a session that has not trained yet has the base's own values where
/// an adapter to start from has others. What strategies have added is left out by
/// ForwardContext::base_alone().
class UntrainedBase {
 public:
  explicit UntrainedBase(const Session& session);
  ~UntrainedBase();
  UntrainedBase(const UntrainedBase&) = delete;
  UntrainedBase& operator=(const UntrainedBase&) = delete;

 private:
  // parameters, and the adapter's values for them
  std::vector<std::pair<at::Tensor, at::Tensor>> adapted_;
};

/// The base's evaluation from the cache (core/cache.hpp), or by `evaluate`, and then it is kept.
/// While another run evaluates the same, this one waits for it. The session's model is the base
/// alone. Absent when it was interrupted, or `evaluate` was. Collective.
std::optional<BaseEvaluation> evaluate_base(
    const Session& session, Interruption& interruption,
    const std::function<std::optional<BaseEvaluation>()>& evaluate);

/// What the evaluation depends on, hashed: the values and the config of the base, its head, the
/// validation samples that are used, the options of model and data set, precision and device, the
/// code, the declared metrics, and the strategies that define the loss, change the base or declare
/// metrics of their own.
std::string key_of_base_evaluation(const Session& session);

}  // namespace attune::train
