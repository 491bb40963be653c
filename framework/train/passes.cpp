#include "train/passes.hpp"

#include "evaluate/evaluate.hpp"

namespace attune::train {
namespace {

ForwardContext pass(const Session& session, Batch batch, Phase phase, std::int64_t step) {
  if (!session.is_planned) move_to(batch, session.device);  // ids and targets keep their values
  const RandomKey key{static_cast<std::uint64_t>(session.config.run.seed),
                      static_cast<std::uint64_t>(step)};
  ForwardContext context(std::move(batch), phase, key);
  context.recompute = session.config.train.recompute;
  return context;
}

}  // namespace

ForwardContext training_pass(const Session& session, Batch batch, std::int64_t step) {
  return pass(session, std::move(batch), Phase::training, step);
}

ForwardContext preparing_pass(const Session& session, Batch batch) {
  return pass(session, std::move(batch), Phase::evaluation, 0);
}

}  // namespace attune::train
