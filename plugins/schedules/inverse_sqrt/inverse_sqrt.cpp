// The learning rate falls with the inverse square root of the step (Zhai et al. 2022, "Scaling
// Vision Transformers", arXiv:2106.04560): get_inverse_sqrt_schedule of transformers.
#include <attune/plugin.hpp>

#include <cmath>

namespace {

class InverseSqrt final : public attune::Schedule {
 public:
  struct Options {
    std::int64_t timescale = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("timescale", &Options::timescale,
            "steps in the learning-rate factor sqrt(timescale / (timescale + steps after the "
            "warm-up)); 0: the number of warm-up steps, or 10000 without a warm-up")
          .at_least(0);
    }
  };
  explicit InverseSqrt(Options options) : options_(options) {}

  double factor(const attune::ScheduleStep& now) const override {
    const auto of_warmup = now.warmup > 0 ? now.warmup : 10000;
    const auto timescale =
        static_cast<double>(options_.timescale > 0 ? options_.timescale : of_warmup);
    return 1 / std::sqrt((static_cast<double>(now.after_warmup()) + timescale) / timescale);
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("inverse_sqrt", "1.0.0", registry) {
  registry.schedule<InverseSqrt>(
      "inverse_sqrt", "decay of the learning rate with the inverse square root of the step");
}
