// Asks for a checkpoint every so many steps. The framework writes it: atomically, and a last one at the end of the run.
#include <attune/plugin.hpp>

namespace {

class Checkpoint final : public attune::Callback {
 public:
  struct Options {
    std::int64_t every = 0;
    std::int64_t keep = 2;
    static void describe(attune::Schema<Options>& s) {
      s.key("every", &Options::every, "steps between checkpoints; 0: at the end alone").at_least(0);
      s.key("keep", &Options::keep, "how many of the newest stay; 0: all").at_least(0);
    }
  };
  explicit Checkpoint(Options options) : options_(options) {}

  void on(attune::Event event, attune::Run& run) override {
    if (event == attune::Event::run_begin) run.checkpoints_kept = options_.keep;
    if (event == attune::Event::step_end && options_.every > 0 && run.step % options_.every == 0) run.request_checkpoint(options_.keep);
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("checkpoint", "1.0.0", registry) {
  registry.callback<Checkpoint>("checkpoint", "saves the run every so many steps, so that --resume can go on from there");
}
