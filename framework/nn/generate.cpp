#include <ATen/CPUGeneratorImpl.h>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <nn/generate.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace attune::nn {
namespace {

Batch continuation(const std::vector<std::int32_t>& tokens, KeyValueCache& cache, at::Device device) {
  const auto length = static_cast<std::int64_t>(tokens.size());
  Batch batch;
  batch.tokens = torch::tensor(tokens, at::kInt).to(device, at::kLong);
  batch.positions = at::arange(cache.length(), cache.length() + length, at::TensorOptions().dtype(at::kLong).device(device));
  batch.starts = {0, length};
  batch.cache = &cache;
  return batch;
}

/// Zero outside the smallest set of tokens that has probability top_p.
at::Tensor nucleus(const at::Tensor& probabilities, double top_p) {
  const auto [sorted, order] = probabilities.sort(0, true);
  const at::Tensor outside = sorted.cumsum(0) - sorted >= top_p;
  return probabilities.index_put({order}, sorted.masked_fill(outside, 0));
}

std::int32_t choose(const at::Tensor& logits, const GenerateOptions& options, const at::Generator& generator) {
  if (options.temperature == 0) return static_cast<std::int32_t>(logits.argmax().item<std::int64_t>());
  at::Tensor probabilities = at::softmax(logits.to(at::kCPU, at::kFloat) / options.temperature, 0);
  if (options.top_p < 1) probabilities = nucleus(probabilities, options.top_p);
  return static_cast<std::int32_t>(at::multinomial(probabilities, 1, false, generator).item<std::int64_t>());
}

}  // namespace

std::vector<std::int32_t> generate(Model& model, const std::vector<std::int32_t>& prompt, const GenerateOptions& options,
                                   const std::function<bool(std::int32_t)>& on_token) {
  const auto room = model.spec().context - static_cast<std::int64_t>(prompt.size());
  if (prompt.empty()) fail("the prompt is empty: give at least one token to go on from");
  if (room <= 0) fail("the prompt has {} tokens, which fill the model's context of {}: shorten it", prompt.size(), model.spec().context);
  const torch::NoGradGuard no_grad;
  const auto device = model.projection().weight.device();
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  KeyValueCache cache(model.spec().depth);
  std::vector<std::int32_t> next = prompt, generated;
  while (static_cast<std::int64_t>(generated.size()) < std::min(options.max_tokens, room)) {
    const at::Tensor last = model.features(continuation(next, cache, device)).slice(0, -1);
    const auto token = choose(model.projection().forward(last).squeeze(0), options, generator);
    if (std::find(options.stop.begin(), options.stop.end(), token) != options.stop.end()) break;
    generated.push_back(token);
    if (on_token && !on_token(token)) break;
    next = {token};
  }
  return generated;
}

}  // namespace attune::nn
