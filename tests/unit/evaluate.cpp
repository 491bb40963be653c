// Metrics over a split that is shared out to the ranks, against plain formulas.
#include "evaluate/evaluate.hpp"

#include <attune/nn.hpp>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "parallel/mpi.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;

const Comm& all() {
  static const Comm comm = world();
  return comm;
}

/// Outputs are the samples' own column x: what is under test is the rest.
class Given final : public Model {
 public:
  explicit Given(Task task, std::int64_t outputs) : Model({.family = "given", .task = task, .context = 1, .outputs = outputs}), projection_(outputs, outputs, false) {
    const torch::NoGradGuard no_grad;
    projection_.weight.copy_(torch::eye(outputs));
  }
  at::Tensor embed(const Batch& batch) override { return batch.columns.at("x"); }
  at::Tensor block(std::int64_t, const at::Tensor& h, const Batch&) override { return h; }
  at::Tensor finish(const at::Tensor& h, const Batch&) override { return h; }
  nn::Linear& projection() override { return projection_; }
  torch::nn::Module& module() override { return projection_; }
  nlohmann::json config() const override { return {}; }
  std::string block_prefix(std::int64_t) const override { return ""; }

 private:
  nn::Linear projection_;
};

struct Columns final : Dataset {
  Sample encode(const Record&, const EncodeContext&) const override { return {}; }
  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<at::Tensor> x, y;
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
Metrics metrics_of(Task task, const at::Tensor& x, const at::Tensor& y) {
  const auto path = fs::path(testing::TempDir()) / ("attune-evaluate-" + std::to_string(::getpid()) + ".h5");
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
  Strategies strategy({});
  return evaluate(model, strategy, Columns(), {file.split("validation"), x.size(0), 3}, all(), at::kCPU).value();
}

TEST(Evaluate, CountsClassesThatTheLargestOutputHits) {
  const auto x = torch::tensor({2.f, 1.f, 0.f, 1.f, 5.f, 4.f, 1.f, 2.f, 0.f, 3.f}).reshape({5, 1, 2});
  const auto metrics = metrics_of(Task::classification, x, torch::tensor({0, 1, 1, 1, 0}, at::kLong));
  EXPECT_DOUBLE_EQ(metrics.at("accuracy"), 0.6);
  EXPECT_FALSE(metrics.contains("f1") || metrics.contains("pearson") || metrics.contains("perplexity"));
}

TEST(Evaluate, OfSeveralLabelsGivesTheirF1) {
  torch::manual_seed(1);
  const auto x = torch::randn({11, 1, 4});
  const auto y = (torch::rand({11, 1, 4}) > 0.6).to(at::kFloat);
  const auto predicted = x > 0, given = y > 0.5;
  const auto count = [](const at::Tensor& t) { return t.sum().item<double>(); };
  const double hits = count(predicted & given), precision = hits / count(predicted), recall = hits / count(given);

  const auto metrics = metrics_of(Task::classification, x, y);

  EXPECT_NEAR(metrics.at("f1"), 2 * precision * recall / (precision + recall), 1e-12);
  EXPECT_NEAR(metrics.at("accuracy"), count(predicted == given) / 44, 1e-12);
  EXPECT_NEAR(metrics.at("loss"), torch::binary_cross_entropy_with_logits(x, y).item<double>(), 1e-6);
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
  EXPECT_EQ(metrics_of(Task::classification, x, torch::ones({13})).at("pearson"), 0) << "nothing varies";
}

}  // namespace
}  // namespace attune
