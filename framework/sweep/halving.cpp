#include "sweep/halving.hpp"

#include <attune/error.hpp>
#include <attune/registry.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "core/files.hpp"

namespace attune::sweep {
namespace fs = std::filesystem;

namespace {

class Halving final : public Callback {
 public:
  struct Options {
    fs::path sweep;
    static void describe(Schema<Options>&) {}
  };
  explicit Halving(Options options)
      : sweep_(read_sweep(config::Document::parse(options.sweep / "sweep.toml"))),
        rungs_(rungs(sweep_.halving)),
        journal_(options.sweep / "journal") {}

  void on(Event event, const Run& run, Requests& requests) override {
    if (event != Event::evaluated || run.step >= run.steps ||
        std::ranges::count(rungs_, run.step) == 0)
      return;
    const double value = run.metrics.at(run.metric(sweep_.options.metric).name);
    std::string verdict;
    if (run.comm.root())
      verdict =
          compare(run, has_finite_loss(run) ? value : std::numeric_limits<double>::quiet_NaN());
    verdict = run.comm.broadcast(verdict);
    if (!verdict.empty()) requests.stop(verdict);
  }

 private:
  /// Without one, whatever other metrics say is chance.
  static bool has_finite_loss(const Run& run) {
    const auto loss = run.metrics.find("loss");
    return loss == run.metrics.end() || std::isfinite(loss->second);
  }

  /// Why it ends; empty: it goes on.
  std::string compare(const Run& run, double value) const {
    journal_.note(run.name, run.step, value);
    const auto all = journal_.at(run.step);
    if (goes_on(all, run.name, sweep_.halving.factor, run.metric(sweep_.options.metric).better))
      return "";
    return fmt::format("pruned at step {}: {} {:.4g} is not among the best 1/{} of {} trials",
                       run.step, sweep_.options.metric, value, sweep_.halving.factor, all.size());
  }

  Sweep sweep_;
  std::vector<std::int64_t> rungs_;
  Journal journal_;
};

/// NaN where the text is no number.
double value_in(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return end == text.c_str() ? std::numeric_limits<double>::quiet_NaN() : value;
}

}  // namespace

void Journal::note(const std::string& trial, std::int64_t step, double value) const {
  write_text(folder_ / fmt::format("step-{:09}", step) / trial, fmt::format("{:.17g}\n", value));
}

std::map<std::string, double> Journal::at(std::int64_t step) const {
  std::map<std::string, double> values;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder_ / fmt::format("step-{:09}", step), none))
    if (const auto name = entry.path().filename().string(); !name.starts_with('.'))
      values[name] = value_in(read_text(entry.path()));
  return values;
}

std::vector<std::int64_t> rungs(const HalvingOptions& options) {
  std::vector<std::int64_t> steps;
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  for (auto rung = options.first; rung > 0;
       rung = rung > most / options.factor ? 0 : rung * options.factor)
    steps.push_back(rung);
  return steps;
}

bool goes_on(const std::map<std::string, double>& values, const std::string& trial,
             std::int64_t factor, Better direction) {
  const double mine = values.at(trial);
  if (!std::isfinite(mine)) return false;
  const auto is_better = [&](double value) {
    return std::isfinite(value) && (direction == Better::larger ? value > mine : value < mine);
  };
  const auto better =
      std::ranges::count_if(values, [&](const auto& other) { return is_better(other.second); });
  return better < std::max<std::int64_t>(1, static_cast<std::int64_t>(values.size()) / factor);
}

void add_halving(config::RunConfig& run, const fs::path& sweep) {
  static Registry registry;  // its entry must outlive the run
  if (registry.entries().empty())
    registry.callback<Halving>("halving", "ends the losing trials of a sweep early");
  auto options = std::make_shared<Halving::Options>();
  options->sweep = sweep;
  run.callbacks.push_back({&registry.find(Kind::callback, "halving"), options});
  run.evaluate.also_at = rungs(read_sweep(config::Document::parse(sweep / "sweep.toml")).halving);
}

}  // namespace attune::sweep
