#include <ATen/CPUGeneratorImpl.h>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <nn/generate.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace attune::nn {
namespace {

/// A prompt and what follows it so far.
struct Answer {
  std::size_t prompt;  // which
  std::int64_t room;   // tokens that may still come
  at::Generator generator;
  Tokens next;  // that the model has not seen yet
};

Batch continuation(const std::vector<Answer>& answers, KeyValueCache& cache, at::Device device) {
  std::vector<std::int64_t> tokens, positions;
  Batch batch;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto seen = cache.length(static_cast<std::int64_t>(i));
    for (std::size_t at = 0; at < answers[i].next.size(); ++at) tokens.push_back(answers[i].next[at]), positions.push_back(seen + static_cast<std::int64_t>(at));
    batch.starts.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  batch.tokens = torch::tensor(tokens, at::kLong).to(device);
  batch.positions = torch::tensor(positions, at::kLong).to(device);
  batch.cache = &cache;
  return batch;
}

/// The features of each sample's last token.
at::Tensor last_rows(const at::Tensor& features, const Batch& batch) {
  std::vector<std::int64_t> rows;
  for (std::size_t sample = 1; sample < batch.starts.size(); ++sample) rows.push_back(batch.starts[sample] - 1);
  return features.index_select(0, torch::tensor(rows, at::kLong).to(features.device()));
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

Answer begin_answer(const Model& model, const std::vector<Tokens>& prompts, std::size_t index, const GenerateOptions& options) {
  const auto& prompt = prompts[index];
  const auto room = model.spec().context - static_cast<std::int64_t>(prompt.size());
  if (prompt.empty()) fail("the prompt is empty: give at least one token to go on from");
  if (room <= 0) fail("the prompt has {} tokens, which fill the model's context of {}: shorten it", prompt.size(), model.spec().context);
  return {index, std::min(options.max_tokens, room), at::make_generator<at::CPUGeneratorImpl>(options.seed), prompt};
}

/// on_token(which prompt, token): false ends that answer.
void generate_all(Model& model, const std::vector<Tokens>& prompts, const GenerateOptions& options, const std::function<bool(std::size_t, std::int32_t)>& on_token) {
  const torch::NoGradGuard no_grad;
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < prompts.size(); ++i) answers.push_back(begin_answer(model, prompts, i, options));
  if (options.max_tokens == 0) return;
  KeyValueCache cache(model.spec().depth, std::ssize(prompts));
  const auto device = model.projection().weight.device();
  while (!answers.empty()) {
    const auto batch = continuation(answers, cache, device);
    const at::Tensor logits = model.projection().forward(last_rows(model.features(batch), batch));
    std::vector<Answer> unfinished;
    std::vector<std::int64_t> kept;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      auto& answer = answers[i];
      const auto token = choose(logits[static_cast<std::int64_t>(i)], options, answer.generator);
      if (std::ranges::find(options.stop, token) != options.stop.end() || !on_token(answer.prompt, token) || --answer.room == 0) continue;
      answer.next = {token};
      unfinished.push_back(std::move(answer));
      kept.push_back(static_cast<std::int64_t>(i));
    }
    if (kept.size() < answers.size()) cache.keep(kept);
    answers = std::move(unfinished);
  }
}

}  // namespace

Tokens generate(Model& model, const Tokens& prompt, const GenerateOptions& options, const std::function<bool(std::int32_t)>& on_token) {
  Tokens generated;
  generate_all(model, {prompt}, options, [&](std::size_t, std::int32_t token) {
    generated.push_back(token);
    return !on_token || on_token(token);
  });
  return generated;
}

std::vector<Tokens> generate_each(Model& model, const std::vector<Tokens>& prompts, const GenerateOptions& options) {
  std::vector<Tokens> generated(prompts.size());
  generate_all(model, prompts, options, [&](std::size_t prompt, std::int32_t token) { return generated[prompt].push_back(token), true; });
  return generated;
}

}  // namespace attune::nn
