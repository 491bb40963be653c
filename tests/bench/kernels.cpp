// Every kernel of framework/nn beside its plain LibTorch form, forward and backward, on the shapes
// of SmolLM2-135M with 4 x 256 tokens.
#include <attune/linear.hpp>
#include <attune/loss.hpp>
#include <attune/nn.hpp>
#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>

namespace {

using namespace attune;

constexpr std::int64_t samples = 4;
constexpr std::int64_t length = 256;
constexpr std::int64_t tokens = samples * length;
constexpr std::int64_t width = 576;
constexpr std::int64_t inner = 1536;
constexpr std::int64_t heads = 9;
constexpr std::int64_t key_heads = 3;
constexpr std::int64_t head_width = 64;
constexpr std::int64_t vocabulary = 49152;

at::Tensor leaf(at::IntArrayRef shape) { return torch::randn(shape).requires_grad_(true); }

/// The sum of what forward computes, and back from it.
void run(benchmark::State& state, const std::function<at::Tensor()>& forward) {
  for (auto _ : state) forward().sum().backward();
  state.SetItemsProcessed(state.iterations() * tokens);
}

template <class Ours, class Plain>
void add(const std::string& name, Ours ours, Plain plain) {
  benchmark::RegisterBenchmark((name + "/attune").c_str(),
                               [=](benchmark::State& state) { run(state, ours); })
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
  benchmark::RegisterBenchmark((name + "/libtorch").c_str(),
                               [=](benchmark::State& state) { run(state, plain); })
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
}

void add_norm() {
  const auto norm = std::make_shared<nn::RMSNorm>(width, 1e-5);
  const torch::NoGradGuard no_grad;
  norm->weight.fill_(1);
  const at::Tensor x = torch::randn({tokens, width}).requires_grad_(true);
  add(
      "rms norm", [=] { return norm->forward(x); },
      [=] { return x * at::rsqrt(x.square().mean(-1, true) + 1e-5) * norm->weight; });
}

void add_rotation() {
  nn::RotaryEmbedding embedding(head_width, 2048, 1e4);
  const auto rotation = embedding.at(at::arange(tokens) % length);
  const at::Tensor x = leaf({tokens, heads, head_width});
  const at::Tensor cosine = at::cat({rotation.cosine, rotation.cosine}, 1).unsqueeze(1);
  const at::Tensor sine = at::cat({rotation.sine, rotation.sine}, 1).unsqueeze(1);
  add(
      "rotation", [=] { return nn::rotate(x, rotation); },
      [=] {
        const auto halves = x.chunk(2, -1);
        return x * cosine + at::cat({-halves[1], halves[0]}, -1) * sine;
      });
}

void add_swiglu() {
  const at::Tensor gate = leaf({tokens, inner});
  const at::Tensor up = leaf({tokens, inner});
  add("swiglu", [=] { return nn::swiglu(gate, up); }, [=] { return at::silu(gate) * up; });
}

void add_attention() {
  const at::Tensor q = leaf({tokens, heads, head_width});
  const at::Tensor k = leaf({tokens, key_heads, head_width});
  const at::Tensor v = leaf({tokens, key_heads, head_width});
  Batch batch;
  for (std::int64_t sample = 1; sample <= samples; ++sample)
    batch.starts.push_back(sample * length);
  const double scale = 1 / std::sqrt(static_cast<double>(head_width));
  const auto by_head = [](const at::Tensor& t) {
    return t.view({samples, length, -1, head_width}).transpose(1, 2);
  };
  add(
      "attention", [=] { return nn::attention(q, k, v, batch, {.scale = scale}); },
      [=] {
        return at::scaled_dot_product_attention(
            by_head(q), by_head(k).repeat_interleave(heads / key_heads, 1),
            by_head(v).repeat_interleave(heads / key_heads, 1), {}, 0, true, scale);
      });
}

void add_cross_entropy() {
  const auto head = std::make_shared<nn::Linear>(width, vocabulary, false);
  {
    const torch::NoGradGuard no_grad;
    head->weight.normal_(0, 0.02);
  }
  head->weight.requires_grad_(false);
  const at::Tensor x = leaf({tokens, width});
  const at::Tensor targets = torch::randint(vocabulary, {tokens}, at::kLong);
  add(
      "head and cross-entropy", [=] { return cross_entropy(x, *head, targets).sum; },
      [=] {
        return at::cross_entropy_loss(at::linear(x, head->weight), targets, {}, at::Reduction::Sum);
      });
}

void add_mixed_precision() {
  const auto linear = std::make_shared<nn::Linear>(width, inner, false);
  {
    const torch::NoGradGuard no_grad;
    linear->weight.normal_(0, 0.02);
  }
  linear->rounds_operands = true;
  const at::Tensor x = leaf({tokens, width});
  add(
      "linear with bfloat16 operands, against float32",
      [=] {
        ForwardContext alone;
        return linear->forward(x, alone);
      },
      [=] { return at::linear(x, linear->weight); });
}

}  // namespace

int main(int count, char** arguments) {
  torch::manual_seed(1);
  add_norm();
  add_rotation();
  add_swiglu();
  add_attention();
  add_cross_entropy();
  add_mixed_precision();
  benchmark::Initialize(&count, arguments);
  benchmark::RunSpecifiedBenchmarks();
}
