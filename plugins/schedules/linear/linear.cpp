// From the peak learning rate to zero in a straight line: get_linear_schedule_with_warmup of
// transformers.
#include <attune/plugin.hpp>

namespace {

struct Linear final : attune::Schedule {
  using Options = attune::NoOptions;
  explicit Linear(Options) {}
  double factor(const attune::ScheduleStep& now) const override { return 1 - now.progress(); }
};

}  // namespace

ATTUNE_PLUGIN("linear", "1.0.0", registry) {
  registry.schedule<Linear>("linear", "linear decay from the peak learning rate to zero");
}
