// Asks for a checkpoint every so many steps, and for one of the best state so far. The framework writes it: atomically, and a last one
// at the end of the run.
#include <attune/plugin.hpp>

#include <limits>

namespace {

class Checkpoint final : public attune::Callback {
 public:
  struct Options {
    std::int64_t every = 0;
    std::int64_t keep = 2;
    std::string keep_best;
    bool staged = true;
    static void describe(attune::Schema<Options>& s) {
      s.key("every", &Options::every, "steps between checkpoints; 0: at the end alone").at_least(0);
      s.key("keep", &Options::keep, "how many of the newest stay; 0: all").at_least(0);
      s.key("keep_best", &Options::keep_best, "metric whose best state is saved as well and stays, under the name 'best': the largest accuracy, f1 or pearson, the smallest loss or perplexity; empty: none");
      s.key("staged", &Options::staged, "write behind the training, from a copy in memory; false: the training waits, and needs no copy");
    }
  };
  explicit Checkpoint(Options options) : options_(std::move(options)) {
    if (!options_.keep_best.empty()) attune::larger_is_better(options_.keep_best);
  }

  void on(attune::Event event, attune::Run& run) override {
    using attune::Event;
    if (event == Event::run_begin) run.checkpoints = {options_.keep, options_.staged};
    if (event == Event::run_begin && !options_.keep_best.empty()) value_in(run);
    if (event == Event::step_end && options_.every > 0 && run.step % options_.every == 0) run.request_checkpoint();
    if (event == Event::evaluated && !options_.keep_best.empty() && is_best(run)) run.request_checkpoint(/*best=*/true);
  }

  std::string state() const override { return fmt::format("{}", best_); }
  void restore(const std::string& state) override { best_ = std::stod(state); }

 private:
  double value_in(const attune::Run& run) const {
    const auto found = run.metrics.find(options_.keep_best);
    if (found == run.metrics.end()) {
      std::string names;
      for (const auto& [name, value] : run.metrics) names += (names.empty() ? "" : ", ") + name;
      attune::fail("checkpoint.keep_best: this run has no metric '{}'; set it to one of {}", options_.keep_best, names);
    }
    return attune::larger_is_better(options_.keep_best) ? -found->second : found->second;
  }

  bool is_best(const attune::Run& run) {
    const double value = value_in(run);
    if (!(value < best_)) return false;  // NaN is never the best
    best_ = value;
    return true;
  }

  Options options_;
  double best_ = std::numeric_limits<double>::infinity();  // negated where larger is better
};

}  // namespace

ATTUNE_PLUGIN("checkpoint", "1.1.0", registry) {
  registry.callback<Checkpoint>("checkpoint", "saves the run every so many steps, so that --resume can go on from there");
}
