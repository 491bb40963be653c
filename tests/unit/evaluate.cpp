// Metrics over a split that is shared out to the ranks, against plain formulas.
#include "evaluate/evaluate.hpp"

#include <attune/nn.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "parallel/mpi.hpp"
#include "run_directory/evaluation.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = world();
  return comm;
}

/// Outputs are the samples' own column x: what is under test is the rest.
class Given final : public Model {
 public:
  explicit Given(Task task, std::int64_t outputs)
      : Model({.family = "given", .task = task, .context = 1, .outputs = outputs}),
        projection_(outputs, outputs, false) {
    const torch::NoGradGuard no_grad;
    projection_.weight.copy_(torch::eye(outputs));
  }
  at::Tensor embed(ForwardContext& context) override { return context.batch().columns.at("x"); }
  at::Tensor block(std::int64_t, const at::Tensor& h, ForwardContext&) override { return h; }
  at::Tensor finish(const at::Tensor& h, ForwardContext&) override { return h; }
  nn::Linear& projection() override { return projection_; }
  torch::nn::Module& module() override { return projection_; }
  nlohmann::json config() const override { return {}; }
  std::string block_name(std::int64_t) const override { return ""; }

 private:
  nn::Linear projection_;
};

struct Columns final : Dataset {
  Sample encode(const Record&, const EncodeContext&) const override { return {}; }
  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<at::Tensor> x;
    std::vector<at::Tensor> y;
    Batch batch;
    for (const auto& sample : samples) {
      x.push_back(sample.at("x"));
      y.push_back(sample.at("y"));
      batch.starts.push_back(batch.starts.back() + 1);
    }
    batch.columns["x"] = torch::cat(x);
    batch.targets = y.front().dim() == 0 ? torch::stack(y) : torch::cat(y);
    return batch;
  }
};

/// Rows of x [n, 1, outputs] and y, as a split of a file that every rank makes for itself.
Metrics metrics_of(Task task, const at::Tensor& x, const at::Tensor& y,
                   Strategies strategy = Strategies({})) {
  const auto path =
      fs::path(testing::TempDir()) / ("attune-evaluate-" + std::to_string(::getpid()) + ".h5");
  {
    const auto root = hdf5::create_file(path);
    root.attributes().set("format", std::string(data_format));
    root.attributes().set("version", data_version);
    const auto split = root.create_group("validation");
    split.write("x", x);
    split.write("y", y);
  }
  const auto file = DataFile::open(path);
  fs::remove(path);
  Given model(task, x.size(2));
  return evaluate(model, strategy, Columns(), {file.split("validation"), x.size(0), 3},
                  Mesh::make(all()), at::kCPU)
      .value();
}

TEST(Evaluate, CountsClassesThatTheLargestOutputHits) {
  const auto x =
      torch::tensor({2.f, 1.f, 0.f, 1.f, 5.f, 4.f, 1.f, 2.f, 0.f, 3.f}).reshape({5, 1, 2});
  const auto metrics =
      metrics_of(Task::classification, x, torch::tensor({0, 1, 1, 1, 0}, at::kLong));
  EXPECT_DOUBLE_EQ(metrics.at("accuracy"), 0.6);
  EXPECT_FALSE(metrics.contains("f1") || metrics.contains("pearson") ||
               metrics.contains("perplexity"));
}

TEST(Evaluate, OfClassesGivesTheirMeanF1AndMatthewsCorrelation) {
  torch::manual_seed(5);
  const auto x = torch::randn({17, 1, 3});
  const auto predicted = x.squeeze(1).argmax(1);
  const auto y =
      torch::where(torch::rand({17}) < 0.5, predicted, torch::randint(3, {17}, at::kLong));
  const auto metrics = metrics_of(Task::classification, x, y);
  double f1 = 0;
  const auto count = [](const at::Tensor& t) { return t.sum().item<double>(); };
  for (int k = 0; k < 3; ++k)
    f1 += 2 * count(predicted.eq(k) & y.eq(k)) / (count(predicted.eq(k)) + count(y.eq(k)));
  EXPECT_NEAR(metrics.at("f1_macro"), f1 / 3, 1e-12);
  const auto centred = [](const at::Tensor& t) {
    return torch::one_hot(t, 3).to(at::kDouble) -
           torch::one_hot(t, 3).to(at::kDouble).mean(0, true);
  };
  const auto a = centred(predicted);
  const auto b = centred(y);
  EXPECT_NEAR(metrics.at("mcc"),
              ((a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()).item<double>(), 1e-12);
}

/// One that leaves out no metric and gives no outputs.
struct WithoutOutputs final : Strategy {
  void prepare(ModelView&) override {}
  Loss loss(Model&, const ForwardContext& context, const LossFunction&) override {
    return {torch::ones({}), context.batch().samples(), {}, {}};
  }
};

/// One with another loss, which says nothing of its metrics.
struct OwnLoss final : Strategy {
  void prepare(ModelView&) override {}
  bool defines_loss() const override { return true; }
};

TEST(Evaluate, RefusesWhatALossDoesNotServeAndWhatIsDeclaredWrongly) {
  Strategies strategies({{"without", std::make_shared<WithoutOutputs>()}});
  Batch batch;
  batch.targets = torch::zeros({2}, at::kLong);
  const auto of_data =
      metrics::of_targets({batch, ModelSpec{.family = "given", .task = Task::classification}});
  EXPECT_EQ(metric_names(strategies.metrics(of_data)), "accuracy, f1_macro, loss, mcc");
  const auto x = torch::randn({4, 1, 2});
  EXPECT_THAT(error_of([&] {
                metrics_of(Task::classification, x, torch::zeros({4}, at::kLong),
                           std::move(strategies));
              }),
              HasSubstr("'f1_macro' compares outputs with targets"));

  const auto own = Strategies({{"own", std::make_shared<OwnLoss>()}}).metrics(of_data);
  EXPECT_EQ(metric_names(own), "accuracy, loss") << "of another loss nothing more is known";
  EXPECT_EQ(find_metric(own, "loss")->unit, "");
  const auto decoder =
      metrics::of_targets({batch, ModelSpec{.family = "given", .task = Task::next_token}});
  EXPECT_EQ(metric_names(Strategies({{"own", std::make_shared<OwnLoss>()}}).metrics(decoder)),
            "accuracy, loss")
      << "its exponential is no perplexity";

  const auto refusal = [](std::vector<Metric> declared) {
    return error_of([&] { check_declarations(declared, "the dataset plugin"); });
  };
  auto bad = metrics::accuracy("");
  bad.name = "two words";
  EXPECT_THAT(refusal({metrics::loss("", ""), bad}),
              HasSubstr("the dataset plugin declares a metric 'two words'"));
  EXPECT_THAT(refusal({metrics::loss("", ""), metrics::loss("", "")}), HasSubstr("'loss' twice"));
  EXPECT_THAT(refusal({metrics::mcc()}), HasSubstr("without 'loss'"));
  EXPECT_THAT(refusal({metrics::loss("", ""), {"f1", Better::larger}}),
              HasSubstr("'f1' without an accumulator"));
}

TEST(Evaluate, TablesAndFilesHoldTheDeclarations) {
  const Comparison found{{metrics::loss("nats", "d"), {"rewards/margins", Better::larger}},
                         {{"loss", 2.0}, {"rewards/margins", -1}},
                         {{"loss", std::nan("")}, {"rewards/margins", 1}}};
  const auto table = comparison_table(found);
  EXPECT_THAT(
      table,
      HasSubstr("loss                2.0000        nan       +nan  smaller is better, in nats\n"));
  EXPECT_THAT(table,
              HasSubstr("rewards/margins    -1.0000     1.0000    +2.0000  larger is better\n"));
  const auto json = nlohmann::json::parse(
      run_directory::evaluation_text({"validation", 3, found.base, found.tuned, found.declared}));
  EXPECT_TRUE(json["tuned"]["loss"].is_null());
  EXPECT_EQ(json["metrics"]["rewards/margins"]["better"], "larger");
}

TEST(Evaluate, OfSeveralLabelsGivesTheirF1) {
  torch::manual_seed(1);
  const auto x = torch::randn({11, 1, 4});
  const auto y = (torch::rand({11, 1, 4}) > 0.6).to(at::kFloat);
  const auto predicted = x > 0;
  const auto given = y > 0.5;
  const auto count = [](const at::Tensor& t) { return t.sum().item<double>(); };
  const double hits = count(predicted & given);
  const double precision = hits / count(predicted);
  const double recall = hits / count(given);

  const auto metrics = metrics_of(Task::classification, x, y);

  EXPECT_NEAR(metrics.at("f1"), 2 * precision * recall / (precision + recall), 1e-12);
  EXPECT_NEAR(metrics.at("accuracy"), count(predicted == given) / 44, 1e-12);
  EXPECT_NEAR(metrics.at("loss"), torch::binary_cross_entropy_with_logits(x, y).item<double>(),
              1e-6);
}

TEST(Evaluate, OfValuesGivesTheirCorrelation) {
  torch::manual_seed(2);
  const auto x = torch::randn({13, 1, 1});
  const auto y = x.flatten() * 2 + 100 + torch::randn({13});
  const auto pair = torch::corrcoef(torch::stack({x.flatten(), y}).to(at::kDouble));

  const auto metrics = metrics_of(Task::classification, x, y);

  EXPECT_NEAR(metrics.at("pearson"), pair[0][1].item<double>(), 1e-9);
  EXPECT_NEAR(metrics.at("loss"), (x.flatten() - y).square().mean().item<double>(), 1e-3);
  EXPECT_FALSE(metrics.contains("accuracy"));
  EXPECT_EQ(metrics_of(Task::classification, x, torch::ones({13})).at("pearson"), 0)
      << "nothing varies";
}

}  // namespace
}  // namespace attune
