// The peak learning rate, and a decay at the end of the run (Hu et al. 2024, "MiniCPM",
// arXiv:2404.06395, section 4): get_wsd_schedule of transformers with its linear warm-up.
#include <attune/plugin.hpp>

#include <cmath>
#include <numbers>

namespace {

enum class Shape { cosine, linear, one_minus_root };

class WarmupStableDecay final : public attune::Schedule {
 public:
  struct Options {
    double decay = 0.1;
    Shape shape = Shape::cosine;
    double minimum = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("decay", &Options::decay,
            "length of the final decay as a fraction of the steps after the warm-up")
          .range(0, 1);
      s.key("shape", &Options::shape, "shape of the final decay",
            {{"cosine", Shape::cosine},
             {"linear", Shape::linear},
             {"1-sqrt", Shape::one_minus_root}});
      s.key("minimum", &Options::minimum,
            "learning rate at the end of the decay and at the start of the warm-up, as a fraction "
            "of the peak")
          .range(0, 1);
    }
  };
  explicit WarmupStableDecay(Options options) : options_(std::move(options)) {}

  double factor(const attune::ScheduleStep& now) const override {
    const auto decay_steps = static_cast<std::int64_t>(
        std::ceil(options_.decay * static_cast<double>(now.steps_after_warmup())));
    const auto decayed = now.step - (now.steps - decay_steps);
    if (decayed < 0) return 1;
    if (decayed >= decay_steps) return options_.minimum;
    const double left = remaining(static_cast<double>(decayed) / static_cast<double>(decay_steps));
    return left * (1 - options_.minimum) + options_.minimum;
  }
  double warmup_start() const override { return options_.minimum; }

 private:
  double remaining(double progress) const {
    if (options_.shape == Shape::linear) return 1 - progress;
    if (options_.shape == Shape::one_minus_root) return 1 - std::sqrt(progress);
    return 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("warmup_stable_decay", "1.0.0", registry) {
  registry.schedule<WarmupStableDecay>(
      "warmup_stable_decay",
      "constant peak learning rate with a decay only in the last steps (WSD)");
}
