// The metrics that come with Attune, against the formulas of their definitions, in any split into
// batches and ranks.
#include <attune/loss.hpp>
#include <attune/metric.hpp>
#include <attune/model.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace attune {
namespace {

using testing::ElementsAre;

/// What a loss and a batch hold of these rows. outputs and targets [n, ...]; the losses of the rows
/// are `each` [n].
double value_over(const Metric& metric, const at::Tensor& each, const at::Tensor& correct,
                  const at::Tensor& outputs, const at::Tensor& targets,
                  const std::vector<std::int64_t>& lengths) {
  std::vector<std::vector<double>> states;
  std::int64_t first = 0;
  for (const auto length : lengths) {
    const auto part = [&](const at::Tensor& tensor) {
      return tensor.slice(0, first, first + length);
    };
    Loss loss{part(each).sum(), length, part(correct).sum(), part(outputs)};
    Batch batch;
    batch.targets = part(targets);
    const auto accumulator = metric.accumulator();
    accumulator->add({loss, batch});
    states.push_back(accumulator->state());
    first += length;
  }
  const auto whole = metric.accumulator();
  for (const auto& state : states) whole->merge(state);
  return whole->value();
}

const std::vector<std::vector<std::int64_t>> splits{
    {60}, {20, 20, 20}, {1, 9, 30, 20}, {7, 7, 7, 7, 7, 7, 7, 7, 4}};

/// As scikit-learn defines it: the mean over the classes that are a target or an output, 0 for one
/// that is never hit.
double macro_f1(const at::Tensor& targets, const at::Tensor& outputs) {
  double sum = 0;
  double classes = 0;
  for (std::int64_t k = 0; k < 100; ++k) {
    const auto wanted = targets.eq(k);
    const auto said = outputs.eq(k);
    const auto count = [](const at::Tensor& t) { return t.sum().item<double>(); };
    if (count(wanted.logical_or(said)) == 0) continue;
    const double hits = count(wanted.logical_and(said));
    const double precision = count(said) > 0 ? hits / count(said) : 0;
    const double recall = count(wanted) > 0 ? hits / count(wanted) : 0;
    sum += precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
    ++classes;
  }
  return sum / classes;
}

/// The correlation of the two matrices of ones at each row's class: covariance over the root of
/// both variances.
double matthews(const at::Tensor& targets, const at::Tensor& outputs, std::int64_t classes) {
  const auto centred = [&](const at::Tensor& t) {
    const auto ones = torch::one_hot(t, classes).to(at::kDouble);
    return ones - ones.mean(0, true);
  };
  const auto x = centred(targets);
  const auto y = centred(outputs);
  return ((x * y).sum() / ((x * x).sum() * (y * y).sum()).sqrt()).item<double>();
}

TEST(Metrics, OfClassesEqualTheirDefinitionsInAnySplit) {
  torch::manual_seed(3);
  const auto targets = torch::randint(5, {60}, at::kLong);
  // two classes that are no target
  auto outputs = torch::where(torch::rand({60}) < 0.6, targets, torch::randint(7, {60}, at::kLong));
  for (const auto& split : splits) {
    const auto value = [&](const Metric& metric) {
      return value_over(metric, torch::zeros({60}), torch::zeros({60}), outputs, targets, split);
    };
    EXPECT_NEAR(value(metrics::f1_macro()), macro_f1(targets, outputs), 1e-12);
    EXPECT_NEAR(value(metrics::mcc()), matthews(targets, outputs, 7), 1e-12);
    EXPECT_EQ(value(metrics::mcc()), value_over(metrics::mcc(), torch::zeros({60}),
                                                torch::zeros({60}), outputs, targets, {60}))
        << "to the last bit";
  }
}

/// Examples of scikit-learn's documentation: f1_score, matthews_corrcoef.
TEST(Metrics, OfClassesEqualKnownExamples) {
  const auto value = [](const Metric& metric, std::vector<std::int64_t> targets,
                        std::vector<std::int64_t> outputs) {
    const auto n = std::ssize(targets);
    return value_over(metric, torch::zeros({n}), torch::zeros({n}), torch::tensor(outputs),
                      torch::tensor(targets), {n});
  };
  EXPECT_NEAR(value(metrics::f1_macro(), {0, 1, 2, 0, 1, 2}, {0, 2, 1, 0, 0, 1}), 0.8 / 3, 1e-12);
  EXPECT_NEAR(value(metrics::mcc(), {1, 1, 1, 0}, {1, 0, 1, 1}), -1.0 / 3, 1e-12);
  EXPECT_EQ(value(metrics::mcc(), {1, 1, 0}, {1, 1, 1}), 0) << "the outputs do not vary";
  EXPECT_EQ(value(metrics::mcc(), {2, 0, 1}, {2, 0, 1}), 1);
  EXPECT_EQ(value(metrics::f1_macro(), {2, 0, ignored_target, 1}, {2, 0, 1, 1}), 1)
      << "what is no target does not count";
}

TEST(Metrics, OfSumsEqualTheirDefinitionsInAnySplit) {
  torch::manual_seed(4);
  const auto each = torch::rand({60}, at::kDouble);
  const auto outputs = torch::randn({60});
  const auto targets = outputs * 2 + torch::randn({60});
  const auto correct = torch::rand({60}) > 0.5;
  const auto pair = torch::corrcoef(torch::stack({outputs, targets}).to(at::kDouble));
  for (const auto& split : splits) {
    const auto value = [&](const Metric& metric) {
      return value_over(metric, each, correct, outputs, targets, split);
    };
    EXPECT_NEAR(value(metrics::loss("", "")), each.mean().item<double>(), 1e-12);
    EXPECT_EQ(value(metrics::accuracy("")), correct.sum().item<double>() / 60);
    EXPECT_NEAR(value(metrics::perplexity()), std::exp(each.mean().item<double>()), 1e-12);
    EXPECT_NEAR(value(metrics::pearson()), pair[0][1].item<double>(), 1e-9);
  }
  const auto labels = (torch::rand({60, 4}) > 0.6).to(at::kFloat);
  const auto said = torch::rand({60, 4});
  const auto held = labels > 0.5;
  const auto predicted = said > 0.5;
  const double hits = (held & predicted).sum().item<double>();
  const double all = held.sum().item<double>() + predicted.sum().item<double>();
  for (const auto& split : splits)
    EXPECT_EQ(value_over(metrics::f1(), each, correct, said, labels, split), 2 * hits / all);
}

TEST(Metrics, OfScalarsAreTheirMeansAndLeaveOutBatchesWithoutThem) {
  const auto metric = metrics::scalar("margin", "rewards/margins", Better::larger, "", "");
  const auto whole = metric.accumulator();
  for (const double margin : {1.0, 2.0, -1.0}) {
    Loss loss{torch::zeros({}), 1, {}, {}};
    if (margin > 0)
      loss.report("rewards/margins", torch::full({static_cast<std::int64_t>(margin)}, margin));
    whole->add({loss, Batch()});
  }
  EXPECT_DOUBLE_EQ(whole->value(), 5.0 / 3);
  EXPECT_TRUE(std::isnan(metric.accumulator()->value())) << "of nothing there is no mean";
}

TEST(Metrics, FitTheTargetsAndTheTask) {
  const auto names = [](Task task, const at::Tensor& targets) {
    Batch batch;
    batch.targets = targets;
    return metric_names(metrics::of_targets({batch, ModelSpec{.family = "given", .task = task}}));
  };
  const auto classes = torch::zeros({3}, at::kLong);
  EXPECT_EQ(names(Task::next_token, classes), "accuracy, loss, perplexity");
  EXPECT_EQ(names(Task::classification, classes), "accuracy, f1_macro, loss, mcc");
  EXPECT_EQ(names(Task::token_classification, classes), "accuracy, f1_macro, loss, mcc");
  EXPECT_EQ(names(Task::embedding, classes), "accuracy, loss");
  EXPECT_EQ(names(Task::classification, torch::zeros({3})), "loss, pearson");
  EXPECT_EQ(names(Task::classification, torch::zeros({3, 2})), "accuracy, f1, loss");
  EXPECT_EQ(names(Task::next_token, at::Tensor()), "loss");
}

TEST(Metrics, AreReadBackAsTheyWereWritten) {
  const std::vector<Metric> declared{
      metrics::loss("nats", "a \"doc\""),
      {"rewards/margins", Better::larger, "", "\xff", Needs::sums, {}}};
  const auto text = metrics_to_json(declared);
  EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  const auto read = metrics_of_json(text);
  ASSERT_EQ(read.size(), 2);
  EXPECT_EQ(find_metric(read, "loss")->doc, "a \"doc\"");
  EXPECT_EQ(find_metric(read, "loss")->unit, "nats");
  EXPECT_EQ(find_metric(read, "rewards/margins")->better, Better::larger);
  EXPECT_EQ(find_metric(read, "f1"), nullptr);
  for (const char* other : {"", "[]", "{\"a\": 1, \"b\": {\"better\": \"best\"}, \"c\": {}}"})
    EXPECT_TRUE(metrics_of_json(other).empty()) << other;
}

TEST(Metrics, CostLessWhereTheyAreBetter) {
  const auto all = metrics::all();
  for (const auto* rising : {"accuracy", "f1", "pearson", "f1_macro", "mcc"})
    EXPECT_LT(find_metric(all, rising)->cost(0.9), find_metric(all, rising)->cost(0.1)) << rising;
  for (const auto* falling : {"loss", "perplexity"})
    EXPECT_LT(find_metric(all, falling)->cost(0.1), find_metric(all, falling)->cost(0.9))
        << falling;
  EXPECT_TRUE(std::isnan(metrics::mcc().cost(std::nan(""))));
}

}  // namespace
}  // namespace attune
