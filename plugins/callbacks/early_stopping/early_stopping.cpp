// Ends the run when the watched metric has not improved for some evaluations (Prechelt 1998, "Early
// Stopping - But When?").
#include <attune/plugin.hpp>

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
      s.key("metric", &Options::metric,
            "validation metric to watch; its declaration says whether larger or smaller is better")
          .names_metric();
      s.key("patience", &Options::patience,
            "end the run after this many consecutive evaluations without improvement")
          .at_least(1);
      s.key("min_delta", &Options::min_delta,
            "smallest change of the metric that counts as an improvement")
          .at_least(0);
    }
  };
  explicit EarlyStopping(Options options) : options_(std::move(options)) {}

  void on(attune::Event event, const attune::Run& run, attune::Requests& requests) override {
    if (event == attune::Event::run_begin) run.metric(options_.metric);  // before the first step
    if (event != attune::Event::evaluated) return;
    const auto& metric = run.metric(options_.metric);
    const double cost = metric.cost(run.metrics.at(options_.metric));
    if (cost < best_ - options_.min_delta) {
      best_ = cost;
      without_ = 0;
    } else if (++without_ >= options_.patience) {
      requests.stop(fmt::format("{} has not improved in {} evaluations (best {:.4f})",
                                options_.metric, without_, metric.cost(best_)));
    }
  }

  std::string state() const override { return fmt::format("{} {}", without_, best_); }
  void restore(const std::string& state) override {
    std::istringstream text(state);
    // "inf" before the first evaluation, which operator>> does not read as a number
    std::string best;
    text >> without_ >> best;
    best_ = std::stod(best);
  }

 private:
  Options options_;
  double best_ = std::numeric_limits<double>::infinity();  // Metric::cost
  std::int64_t without_ = 0;
};

}  // namespace

ATTUNE_PLUGIN("early_stopping", "1.0.0", registry) {
  registry.callback<EarlyStopping>("early_stopping",
                                   "ends the run when the validation metric stops improving");
}
