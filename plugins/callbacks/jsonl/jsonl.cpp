// One JSON object per event in metrics.jsonl of the run directory; rank 0 writes.
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <fstream>

namespace {

/// Seconds since 1970.
double unix_seconds() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

class Jsonl final : public attune::Callback {
 public:
  using Options = attune::NoOptions;
  explicit Jsonl(Options) {}

  void on(attune::Event event, attune::Run& run) override {
    using attune::Event;
    if (!run.comm.root() || event == Event::step_begin || event == Event::gradients_ready) return;
    if (event == Event::run_begin) open(run.directory / "metrics.jsonl");
    nlohmann::ordered_json line{{"event", attune::name(event)}, {"step", run.step}, {"epoch", run.epoch}, {"seconds", run.seconds}, {"unix_seconds", unix_seconds()}};
    if (event == Event::run_begin) line.update({{"steps", run.steps}, {"parameters", run.parameters}, {"trainable_parameters", run.trainable_parameters}});
    if (event == Event::step_end)
      line.update({{"loss", run.loss}, {"learning_rate", run.learning_rate}, {"grad_norm", run.grad_norm}, {"tokens", run.step_tokens}, {"tokens_per_second", run.tokens_per_second}});
    if (event == Event::step_end && run.skipped_steps > 0) line["skipped_steps"] = run.skipped_steps;
    if ((event == Event::step_end || event == Event::run_end) && run.samples_without_target > 0) line["samples_without_target"] = run.samples_without_target;
    if (event == Event::checkpoint_saved) line["saved_step"] = run.saved_step;
    if (event == Event::run_begin || event == Event::evaluated) line["evaluation"] = run.metrics;
    if (event == Event::run_end && !run.stop_reason.empty()) line["stop_reason"] = run.stop_reason;
    file_ << line.dump() << std::endl;
    if (!file_) attune::fail("{}: cannot be written; is the disk full?", path_.string());
  }

  std::string state() const override { return std::to_string(std::max<std::streamoff>(0, file_.is_open() ? std::streamoff(file_.tellp()) : 0)); }
  void restore(const std::string& state) override { keep_ = std::stoull(state); }

 private:
  /// What an interrupted run wrote after the checkpoint that is resumed from goes; it is about to be done again.
  void open(const std::filesystem::path& path) {
    path_ = path;
    if (std::filesystem::exists(path) && std::filesystem::file_size(path) > keep_) std::filesystem::resize_file(path, keep_);
    file_.open(path, std::ios::binary | std::ios::app);
    file_.seekp(0, std::ios::end);
    if (!file_) attune::fail("{}: cannot be written", path.string());
  }

  std::filesystem::path path_;
  mutable std::ofstream file_;
  std::uintmax_t keep_ = 0;
};

}  // namespace

ATTUNE_PLUGIN("jsonl", "1.0.0", registry) { registry.callback<Jsonl>("jsonl", "writes one JSON object per event to metrics.jsonl"); }
