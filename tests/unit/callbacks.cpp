// Callbacks that compare metrics: every metric's better way is known, everywhere.
#include <attune/callback.hpp>
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>

#include "errors.hpp"
#include "registry/loader.hpp"

namespace {

using namespace attune;
using testing::AllOf;
using testing::HasSubstr;

std::shared_ptr<Callback> callback(const std::string& plugin, const std::string& option,
                                   const std::string& value) {
  static const Registry registry = [] {
    Registry loaded;
    load_plugins(loaded, {ATTUNE_BINARY_DIR "/plugins"});
    return loaded;
  }();
  const auto& entry = registry.find(Kind::callback, plugin);
  const auto options = entry.defaults();
  for (const auto& known : entry.schema.options) {
    if (known.name == option) known.set(options.get(), value);
    if (known.name == "patience") known.set(options.get(), std::int64_t{1});
  }
  return std::static_pointer_cast<Callback>(entry.build(options.get(), nullptr));
}

/// A run that measures this one alone.
Run run_with(const Metric& metric) {
  Run run;
  run.declared = {metric};
  return run;
}

/// Those that come with Attune, and one of a plugin for each way.
std::vector<Metric> all_metrics() {
  auto all = metrics::all();
  all.push_back({"exact_match", Better::larger});
  all.push_back({"spread", Better::smaller});
  return all;
}

double better_by(const Metric& metric, double value) {
  return metric.better == Better::larger ? value : -value;
}

TEST(early_stopping, ends_when_any_metric_gets_worse) {
  for (const auto& metric : all_metrics()) {
    const auto stopping = callback("early_stopping", "metric", metric.name);
    const auto reason = [&](double value) {
      auto run = run_with(metric);
      run.metrics[metric.name] = better_by(metric, value);
      Requests requests;
      stopping->on(Event::evaluated, run, requests);
      return requests.stop_reason();
    };
    EXPECT_EQ(reason(-0.1), "") << metric.name;
    EXPECT_EQ(reason(0.2), "") << metric.name;
    EXPECT_EQ(reason(0.1), fmt::format("{} has not improved in 1 evaluations (best {:.4f})",
                                       metric.name, better_by(metric, 0.2)))
        << "with its sign";
  }
}

TEST(early_stopping, refuses_a_metric_that_the_run_does_not_have_before_its_first_step) {
  const auto run = run_with({"f1_macro", Better::larger});
  const auto refusal = [&](const char* metric) {
    return error_of([&] {
      Requests requests;
      callback("early_stopping", "metric", metric)->on(Event::run_begin, run, requests);
    });
  };
  EXPECT_THAT(refusal("f1"), HasSubstr("this run has no metric 'f1'"));
  EXPECT_THAT(refusal("f1_macr"),
              AllOf(HasSubstr("it measures f1_macro"), HasSubstr("did you mean 'f1_macro'?")));
  EXPECT_EQ(refusal("f1_macro"), "no error");
}

}  // namespace
