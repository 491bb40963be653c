// Ends the run when the watched metric has not improved for some evaluations (Prechelt 1998, "Early Stopping - But When?").
#include <attune/plugin.hpp>

#include <cmath>
#include <limits>
#include <sstream>

namespace {

class EarlyStopping final : public attune::Callback {
 public:
  struct Options {
    std::string metric = "loss";
    std::int64_t patience = 3;
    double min_delta = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("metric", &Options::metric, "watched metric: accuracy, f1 and pearson are to rise, loss and perplexity to fall").choices(attune::metric_names());
      s.key("patience", &Options::patience, "evaluations in a row without improvement after which the run ends").at_least(1);
      s.key("min_delta", &Options::min_delta, "a smaller change is no improvement").at_least(0);
    }
  };
  explicit EarlyStopping(Options options) : options_(std::move(options)) {}

  void on(attune::Event event, attune::Run& run) override {
    if (event == attune::Event::run_begin) value_in(run);  // before the first step
    if (event != attune::Event::evaluated) return;
    const double value = value_in(run);
    if (value < best_ - options_.min_delta) {
      best_ = value, without_ = 0;
    } else if (++without_ >= options_.patience) {
      run.request_stop(fmt::format("{} has not improved in {} evaluations (best {:.4f})", options_.metric, without_, std::abs(best_)));
    }
  }

  std::string state() const override { return fmt::format("{} {}", without_, best_); }
  void restore(const std::string& state) override {
    std::istringstream text(state);
    std::string best;  // "inf" before the first evaluation, which operator>> does not read as a number
    text >> without_ >> best;
    best_ = std::stod(best);
  }

 private:
  double value_in(const attune::Run& run) const {
    const auto found = run.metrics.find(options_.metric);
    if (found == run.metrics.end())
      attune::fail("early_stopping: this run has no metric '{}'; set metric to one of those in its evaluations, such as 'loss'", options_.metric);
    return attune::larger_is_better(options_.metric) ? -found->second : found->second;
  }

  Options options_;
  double best_ = std::numeric_limits<double>::infinity();  // negated where larger is better
  std::int64_t without_ = 0;
};

}  // namespace

ATTUNE_PLUGIN("early_stopping", "1.0.0", registry) {
  registry.callback<EarlyStopping>("early_stopping", "ends the run when the validation metric no longer improves");
}
