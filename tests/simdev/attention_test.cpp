// Attention on simulated devices: which kernel serves what, and that all of them compute what the
// host does, sample by sample.
#include <attune/model.hpp>
#include <attune/nn.hpp>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "counters.hpp"
#include "device.hpp"
#include "memory.hpp"
#include "nn/attention_kernels.hpp"

namespace attune {
namespace {

struct Case {
  const char* kernel;  // that serves it on a device
  at::ScalarType type;
  std::int64_t width;
  nn::AttentionOptions options;
  std::vector<std::int64_t> starts{0, 7, 8, 13};
  std::int64_t key_heads = 2;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.kernel << " " << c.type << ", width " << c.width << ", causal " << c.options.causal
       << ", window " << c.options.window << ", softcap " << c.options.softcap << ", samples "
       << c.starts.size() - 1 << ", key heads " << c.key_heads;
}

class Attention : public testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() { simdev::register_devices(); }
};

INSTANTIATE_TEST_SUITE_P(
    All, Attention,
    testing::Values(
        Case{"flash", at::kBFloat16, 8, {0.3, true}}, Case{"flash", at::kHalf, 16, {0.3, false}},
        Case{"flash", at::kBFloat16, 8, {0.3, true, 3}},
        Case{"flash", at::kBFloat16, 8, {0.3, true, 3}, {0, 9}, 4},
        Case{"efficient", at::kBFloat16, 200, {0.1, true}},  // no backward pass by flash
        Case{"padded", at::kBFloat16, 6, {0.3, true}},
        Case{"efficient", at::kFloat, 8, {0.3, true}},
        Case{"efficient", at::kFloat, 16, {0.3, false}, {0, 4, 9}, 4},
        Case{"efficient", at::kFloat, 8, {0.3, true, 7}},  // nothing is as long
        Case{"padded", at::kFloat, 8, {0.3, true, 3}}, Case{"padded", at::kFloat, 6, {0.3, true}},
        Case{"padded", at::kFloat, 6, {0.3, false}},
        Case{"padded", at::kFloat, 6, {0.3, false}, {0, 5, 10}},
        Case{"padded", at::kFloat, 8, {0.3, true, 0, 4.0}},
        Case{"padded", at::kFloat, 8, {0.3, true, 3, 4.0}},
        Case{"padded", at::kFloat, 8, {0.3, false, 0, 4.0}, {0, 1, 9}},
        Case{"padded", at::kFloat, 6, {0.3, true}, {0, 1, 2, 3}},
        // one long sample: padded in parts
        Case{"padded", at::kFloat, 6, {0.3, true}, {0, 3, 803, 804, 809}},
        Case{"padded", at::kFloat, 6, {0.3, false}, {0, 3, 803, 804, 809}},
        Case{"padded", at::kFloat, 8, {0.3, true, 3}, {0, 3, 803, 804, 809}},
        Case{"padded", at::kFloat, 8, {0.3, true, 0, 4.0}, {0, 3, 803, 804, 809}},
        Case{"", at::kFloat, 6, {0.3, true}, {0, 9}},
        Case{"", at::kFloat, 8, {0.3, true, 0, 4.0}, {0, 9}, 4}));

struct Attended {
  at::Tensor y, dq, dk, dv;
};

Attended attended(const Case& c, c10::Device device) {
  torch::manual_seed(1);
  Batch batch;
  batch.starts = c.starts;
  const auto rows = c.starts.back();
  const auto random = [&](std::int64_t heads) {
    return torch::randn({rows, heads, c.width}).to(c.type).to(device).requires_grad_();
  };
  const auto q = random(4), k = random(c.key_heads), v = random(c.key_heads);
  const at::Tensor dy = torch::randn({rows, 4, c.width}).to(c.type).to(device);
  const auto y = nn::attention(q, k, v, ForwardContext(batch), c.options);
  y.backward(dy);
  return {y.detach().cpu(), q.grad().cpu(), k.grad().cpu(), v.grad().cpu()};
}

TEST_P(Attention, IsTheHostsOnADevice) {
  const auto& c = GetParam();
  const auto on_host = attended(c, c10::kCPU);
  const auto on_device = attended(c, {simdev::sim, 0});
  const double by = c.type == at::kFloat ? 1e-5 : 3e-2;
  EXPECT_TRUE(on_device.y.allclose(on_host.y, by, by));
  EXPECT_TRUE(on_device.dq.allclose(on_host.dq, by, by));
  EXPECT_TRUE(on_device.dk.allclose(on_host.dk, by, by));
  EXPECT_TRUE(on_device.dv.allclose(on_host.dv, by, by));
}

TEST_P(Attention, IsServedByOneKernelForTheBatch) {
  const auto& c = GetParam();
  const auto rows = c.starts.back();
  const auto x = at::zeros({rows, 4, c.width}, at::TensorOptions(simdev::sim).dtype(c.type));
  const auto k = at::zeros({rows, c.key_heads, c.width}, x.options());
  const auto* kernel = nn::attention_kernel({x, k, k, c.starts, c.starts, c.options});
  EXPECT_STREQ(kernel ? kernel->name : "", c.kernel);
}

TEST_P(Attention, NeedsNoWaitAndNoCallForEachSample) {
  const auto& c = GetParam();
  if (c.starts.size() == 2) return;  // one sample needs none
  const auto of = [&](const std::vector<std::int64_t>& starts) {
    auto more = c;
    more.starts = starts;
    attended(more, {simdev::sim, 0});  // kernels are tried
    const auto before = simdev::counted();
    Batch batch;
    batch.starts = starts;
    const auto x =
        at::zeros({starts.back(), 4, c.width}, at::TensorOptions(simdev::sim).dtype(c.type));
    nn::attention(x, x, x, ForwardContext(batch), c.options);
    const auto after = simdev::counted();
    EXPECT_EQ(after.waited(), before.waited());
    std::int64_t operators = 0;
    for (const auto& [name, count] : after.operators)
      operators += count - (before.operators.contains(name) ? before.operators.at(name) : 0);
    return operators;
  };
  EXPECT_LE(of({0, 5, 7, 11, 12, 18, 20}), of({0, 5, 7})) << "as many operators for six samples";
}

}  // namespace
}  // namespace attune
