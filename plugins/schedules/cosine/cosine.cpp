// Half a cosine from the peak learning rate to a minimum (Loshchilov and Hutter 2017, "SGDR:
// Stochastic Gradient Descent with Warm Restarts", arXiv:1608.03983, equation 5): transformers'
// get_cosine_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup and
// get_cosine_with_hard_restarts_schedule_with_warmup.
#include <attune/plugin.hpp>

#include <cmath>
#include <numbers>

namespace {

class Cosine final : public attune::Schedule {
 public:
  struct Options {
    double minimum = 0;
    std::int64_t restarts = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("minimum", &Options::minimum, "final learning rate as a fraction of the peak")
          .range(0, 1);
      s.key("restarts", &Options::restarts,
            "number of evenly spaced warm restarts, at which the learning rate returns to its peak")
          .at_least(0);
    }
  };
  explicit Cosine(Options options) : options_(options) {}

  double factor(const attune::ScheduleStep& now) const override {
    if (now.progress() >= 1) return options_.minimum;
    const double fallen =
        std::fmod(static_cast<double>(options_.restarts + 1) * now.progress(), 1.0);
    const double factor = 0.5 * (1 + std::cos(std::numbers::pi * fallen));
    return factor * (1 - options_.minimum) + options_.minimum;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("cosine", "1.0.0", registry) {
  registry.schedule<Cosine>(
      "cosine",
      "cosine decay from the peak learning rate to zero or a minimum, with optional warm restarts");
}
