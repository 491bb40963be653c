// The peak learning rate in every step after the warm-up: get_constant_schedule_with_warmup of
// transformers.
#include <attune/plugin.hpp>

namespace {

struct Constant final : attune::Schedule {
  using Options = attune::NoOptions;
  explicit Constant(Options) {}
  double factor(const attune::ScheduleStep&) const override { return 1; }
};

}  // namespace

ATTUNE_PLUGIN("constant", "1.0.0", registry) {
  registry.schedule<Constant>("constant", "constant peak learning rate after the warm-up");
}
