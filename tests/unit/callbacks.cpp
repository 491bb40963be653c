// Callbacks that compare metrics: every metric's better way is known, everywhere.
#include <attune/callback.hpp>
#include <gmock/gmock.h>

#include <cmath>

#include "errors.hpp"
#include "registry/loader.hpp"

namespace {

using namespace attune;
using testing::AllOf;
using testing::HasSubstr;

std::shared_ptr<Callback> callback(const std::string& plugin, const std::string& option, const std::string& value) {
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

TEST(metrics, have_a_better_way) {
  for (const auto* rising : {"accuracy", "f1", "pearson"}) EXPECT_TRUE(larger_is_better(rising)) << rising;
  for (const auto* falling : {"loss", "perplexity"}) EXPECT_FALSE(larger_is_better(falling)) << falling;
  EXPECT_THAT(error_of([] { larger_is_better("f2"); }), AllOf(HasSubstr("no metric 'f2'"), HasSubstr("accuracy, f1, loss, pearson, perplexity")));
}

TEST(checkpoint, keeps_the_best_by_every_metric) {
  for (const auto& metric : metric_names()) {
    const auto kept = callback("checkpoint", "keep_best", metric);
    const auto is_best = [&](double value) {
      attune::Run run;
      run.metrics[metric] = larger_is_better(metric) ? value : -value;
      kept->on(Event::evaluated, run);
      return run.best_so_far;
    };
    EXPECT_FALSE(is_best(std::nan(""))) << metric;
    EXPECT_TRUE(is_best(-0.5)) << metric;
    EXPECT_FALSE(is_best(-0.7)) << metric;
    EXPECT_FALSE(is_best(std::nan(""))) << metric;
    EXPECT_TRUE(is_best(0.2)) << metric;
    EXPECT_FALSE(is_best(0.2)) << metric;
  }
}

TEST(early_stopping, ends_when_any_metric_gets_worse) {
  for (const auto& metric : metric_names()) {
    const auto stopping = callback("early_stopping", "metric", metric);
    const auto stops = [&](double value) {
      attune::Run run;
      run.metrics[metric] = larger_is_better(metric) ? value : -value;
      stopping->on(Event::evaluated, run);
      return !run.stop_reason.empty();
    };
    EXPECT_FALSE(stops(0.1)) << metric;
    EXPECT_FALSE(stops(0.2)) << metric;
    EXPECT_TRUE(stops(0.1)) << metric;
  }
}

TEST(callbacks, refuse_a_metric_that_the_run_does_not_have_before_its_first_step) {
  for (const auto& [plugin, option] : {std::pair("checkpoint", "keep_best"), std::pair("early_stopping", "metric")}) {
    attune::Run run;
    run.metrics["loss"] = 1;
    const auto watching = callback(plugin, option, "f1");
    EXPECT_THAT(error_of([&] { watching->on(Event::run_begin, run); }), HasSubstr("this run has no metric 'f1'")) << plugin;
  }
  EXPECT_THAT(error_of([] { callback("checkpoint", "keep_best", "f2"); }), HasSubstr("no metric 'f2'"));
}

}  // namespace
