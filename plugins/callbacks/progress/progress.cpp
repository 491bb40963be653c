// Where the run is: one line that updates in a terminal, plain lines elsewhere; rank 0 writes, to
// standard error.
#include <attune/plugin.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>

namespace {

std::string clock_text(double seconds) {
  const auto whole = std::llround(seconds);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

class Progress final : public attune::Callback {
 public:
  struct Options {
    std::int64_t every = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("every", &Options::every,
            "steps between progress lines if the output is not a terminal; 0: about twenty lines "
            "per run")
          .at_least(0);
    }
  };
  explicit Progress(Options options) : options_(options), terminal_(isatty(STDERR_FILENO) != 0) {}

  void on(attune::Event event, const attune::Run& run, attune::Requests&) override {
    using attune::Event;
    if (!run.comm.root()) return;
    if (event == Event::run_begin) begin(run);
    if (event == Event::step_end) step(run);
    if (event == Event::checkpoint_saved && terminal_)
      line(run, fmt::format("checkpoint of step {} saved", run.saved_step));
    if (event == Event::evaluated) line(run, "validation" + metrics(run));
    if (event == Event::interrupted)
      line(run, fmt::format("interrupted at step {}; the state is saved, resume with --resume",
                            run.step));
    if (event == Event::run_end)
      line(run, fmt::format("done in {}{}", clock_text(run.seconds),
                            run.stop_reason.empty() ? "" : ": " + run.stop_reason));
  }

 private:
  void begin(const attune::Run& run) {
    first_step_ = run.step;
    started_ = std::chrono::steady_clock::now();
    line(run, fmt::format("{}: {} of {} parameters train ({:.2f} %), {} rank{}, base{}", run.name,
                          count(run.trainable_parameters), count(run.parameters),
                          100.0 * static_cast<double>(run.trainable_parameters) /
                              static_cast<double>(run.parameters),
                          run.comm.size(), run.comm.size() == 1 ? "" : "s", metrics(run)));
  }

  void step(const attune::Run& run) {
    const auto every =
        options_.every > 0 ? options_.every : std::max<std::int64_t>(1, run.steps / 20);
    if (!terminal_ && run.step % every != 0 && run.step != run.steps) return;
    const double elapsed =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
    const double left = elapsed / static_cast<double>(run.step - first_step_) *
                        static_cast<double>(run.steps - run.step);
    const auto text =
        fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  grad {:.2f}  {:.0f} tokens/s  {} left",
                    run.step, run.steps, run.loss, run.learning_rate, run.grad_norm,
                    run.tokens_per_second, clock_text(left));
    if (terminal_) {
      fmt::print(stderr, "\r\033[K{}{}{}", bar(run), text,
                 scalars(run, columns() - bar_width - std::ssize(text)));
      std::fflush(stderr);
      open_line_ = true;
    } else {
      fmt::print(stderr, "{}{}\n", text, scalars(run, std::numeric_limits<std::ptrdiff_t>::max()));
    }
  }

  /// Of the terminal.
  static std::ptrdiff_t columns() {
    winsize size{};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  }

  /// As many as fit: a line that wraps cannot be written over.
  static std::string scalars(const attune::Run& run, std::ptrdiff_t room) {
    std::string text;
    for (const auto& [name, value] : run.scalars) {
      const auto more = fmt::format("  {} {:.4f}", name, value);
      if (std::ssize(text) + std::ssize(more) < room) text += more;
    }
    return text;
  }

  static constexpr std::ptrdiff_t bar_width = 23;
  static std::string bar(const attune::Run& run) {
    constexpr std::int64_t width = 20;
    const auto full = width * run.step / run.steps;
    std::string text = "[";
    for (std::int64_t i = 0; i < width; ++i) text += i < full ? "█" : "·";
    return text + "] ";
  }

  static std::string metrics(const attune::Run& run) {
    std::string text;
    for (const auto& [name, value] : run.metrics) text += fmt::format("  {} {:.4f}", name, value);
    return text;
  }

  static std::string count(std::int64_t parameters) {
    return parameters >= 1'000'000 ? fmt::format("{:.1f} M", static_cast<double>(parameters) / 1e6)
                                   : fmt::format("{}", parameters);
  }

  /// A line that stays.
  void line(const attune::Run& run, const std::string& text) {
    if (terminal_ && open_line_) fmt::print(stderr, "\n");
    open_line_ = false;
    fmt::print(
        stderr, "{}\n",
        run.step > first_step_ ? fmt::format("step {}/{}  {}", run.step, run.steps, text) : text);
  }

  Options options_;
  bool terminal_;
  bool open_line_ = false;
  std::int64_t first_step_ = 0;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace

ATTUNE_PLUGIN("progress", "1.0.0", registry) {
  registry.callback<Progress>("progress", "prints step, loss, speed and remaining time");
}
