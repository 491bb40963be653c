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
  std::int64_t first = 0;  // virtual tokens
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.kernel << " " << c.type << ", width " << c.width << ", causal " << c.options.causal
       << ", window " << c.options.window << ", softcap " << c.options.softcap << ", samples "
       << c.starts.size() - 1 << ", key heads " << c.key_heads << ", virtual tokens " << c.first;
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
        Case{"flash", at::kBFloat16, 8, {0.3, true}, {0, 7, 8, 13}, 2, 3},
        Case{"flash", at::kBFloat16, 8, {0.3, true, 4}, {0, 7, 8, 13}, 4, 3},
        Case{"efficient", at::kFloat, 8, {0.3, true}, {0, 7, 8, 13}, 2, 3},
        Case{"efficient", at::kFloat, 8, {0.3, false}, {0, 7}, 2, 3},
        Case{"", at::kFloat, 8, {0.3, true, 4}, {0, 7, 13}, 2, 3},
        Case{"", at::kFloat, 6, {0.3, true}, {0, 9}},
        Case{"", at::kFloat, 8, {0.3, true, 0, 4.0}, {0, 9}, 4}));

/// Keys and values before those of every sample.
struct First final : VirtualTokens {
  First(const Case& c, c10::Device device) {
    const auto random = [&] {
      return torch::randn({c.first, c.key_heads, c.width}).to(c.type).to(device).requires_grad_();
    };
    k = random();
    v = random();
  }
  std::int64_t length() const override { return k.size(0); }
  std::pair<at::Tensor, at::Tensor> keys_values(std::int64_t) override { return {k, v}; }
  at::Tensor k, v;
};

/// The output, and the gradients of queries, keys, values, and virtual keys and values.
using Attended = std::vector<at::Tensor>;

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
  First first(c, device);
  ForwardContext context(batch);
  if (c.first > 0) context.virtual_tokens = &first;
  const auto y = nn::attention(q, k, v, context, c.options);
  y.backward(dy);
  Attended all{y.detach().cpu(), q.grad().cpu(), k.grad().cpu(), v.grad().cpu()};
  if (c.first > 0)
    for (const auto& x : {first.k, first.v}) all.push_back(x.grad().cpu());
  return all;
}

TEST_P(Attention, IsTheHostsOnADevice) {
  const auto& c = GetParam();
  const auto on_host = attended(c, c10::kCPU);
  const auto on_device = attended(c, {simdev::sim, 0});
  const double by = c.type == at::kFloat ? 1e-5 : 3e-2;
  for (std::size_t i = 0; i < on_host.size(); ++i)
    EXPECT_TRUE(on_device[i].allclose(on_host[i], by, by)) << i;
}

TEST_P(Attention, IsServedByOneKernelForTheBatch) {
  const auto& c = GetParam();
  const auto rows = c.starts.back();
  const auto x = at::zeros({rows, 4, c.width}, at::TensorOptions(simdev::sim).dtype(c.type));
  auto key_starts = c.starts;
  for (std::size_t i = 0; i < key_starts.size(); ++i)
    key_starts[i] += static_cast<std::int64_t>(i) * c.first;
  const auto k = at::zeros({key_starts.back(), c.key_heads, c.width}, x.options());
  const auto* kernel = nn::attention_kernel({x, k, k, c.starts, key_starts, c.options});
  EXPECT_STREQ(kernel ? kernel->name : "", c.kernel);
}

TEST_P(Attention, NeedsNoWaitAndNoCallForEachSample) {
  const auto& c = GetParam();
  if (c.starts.size() == 2 || c.first > 0) return;
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
