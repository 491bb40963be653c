// The run's events in metrics.jsonl, in the framework's format; rank 0 writes.
#include <attune/metrics_log.hpp>
#include <attune/plugin.hpp>

#include <optional>

namespace {

class Jsonl final : public attune::Callback {
 public:
  using Options = attune::NoOptions;
  explicit Jsonl(Options) {}

  void on(attune::Event event, const attune::Run& run, attune::Requests&) override {
    if (!run.comm.root()) return;
    if (event == attune::Event::run_begin) log_.emplace(run.directory, keep_);
    log_->write(event, run);
  }

  std::string state() const override { return std::to_string(log_ ? log_->bytes() : 0); }
  void restore(const std::string& state) override { keep_ = std::stoull(state); }

 private:
  std::optional<attune::MetricsLog> log_;
  std::uint64_t keep_ = 0;
};

}  // namespace

ATTUNE_PLUGIN("jsonl", "1.0.0", registry) {
  registry.callback<Jsonl>("jsonl", "writes one JSON object per event to metrics.jsonl");
}
