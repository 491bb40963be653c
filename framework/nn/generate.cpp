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
  Tokens seen;  // prompt and answer so far
};

ForwardContext continuation(const std::vector<Answer>& answers, KeyValueCache& cache,
                            at::Device device) {
  std::vector<std::int64_t> tokens;
  std::vector<std::int64_t> positions;
  Batch batch;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto seen = cache.length(static_cast<std::int64_t>(i));
    for (std::size_t at = 0; at < answers[i].next.size(); ++at) {
      tokens.push_back(answers[i].next[at]);
      positions.push_back(seen + static_cast<std::int64_t>(at));
    }
    batch.starts.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  batch.tokens = torch::tensor(tokens, at::kLong).to(device);
  batch.positions = torch::tensor(positions, at::kLong).to(device);
  ForwardContext context(std::move(batch), Phase::generation);
  context.cache = &cache;
  return context;
}

/// The features of each sample's last token.
at::Tensor last_rows(const at::Tensor& features, const Batch& batch) {
  std::vector<std::int64_t> rows;
  for (std::size_t sample = 1; sample < batch.starts.size(); ++sample)
    rows.push_back(batch.starts[sample] - 1);
  return features.index_select(0, torch::tensor(rows, at::kLong).to(features.device()));
}

/// Each token seen counts once, however often it was seen.
at::Tensor penalised(const at::Tensor& logits, const Tokens& seen, double penalty) {
  std::vector<std::int64_t> ids(seen.begin(), seen.end());
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::erase_if(ids, [&](std::int64_t id) { return id >= logits.size(0); });
  const at::Tensor index = torch::tensor(ids, at::kLong);
  const at::Tensor values = logits.index_select(0, index);
  return logits.index_copy(0, index, at::where(values < 0, values * penalty, values / penalty));
}

/// Zero outside the k likeliest tokens, and those as likely as the last of them.
at::Tensor likeliest(const at::Tensor& probabilities, std::int64_t k) {
  if (k >= probabilities.size(0)) return probabilities;
  const at::Tensor least = std::get<0>(probabilities.topk(k)).min();
  return probabilities.masked_fill(probabilities < least, 0);
}

/// Zero outside the smallest set of tokens that has probability top_p.
at::Tensor nucleus(const at::Tensor& probabilities, double top_p) {
  const auto [sorted, order] = probabilities.sort(0, true);
  at::Tensor outside = sorted.cumsum(0) - sorted >= top_p;
  outside[0] = false;  // one token always stays
  return probabilities.index_put({order}, sorted.masked_fill(outside, 0));
}

std::int32_t choose(const at::Tensor& logits, const Tokens& seen, const GenerateOptions& options,
                    const at::Generator& generator) {
  const bool is_plain = options.temperature == 0 && options.repetition_penalty == 1;
  if (is_plain) return static_cast<std::int32_t>(logits.argmax().item<std::int64_t>());
  const at::Tensor probabilities = next_probabilities(logits, seen, options);
  if (options.temperature == 0)
    return static_cast<std::int32_t>(probabilities.argmax().item<std::int64_t>());
  return static_cast<std::int32_t>(
      at::multinomial(probabilities, 1, false, generator).item<std::int64_t>());
}

Answer begin_answer(const Model& model, const std::vector<Tokens>& prompts, std::size_t index,
                    const GenerateOptions& options) {
  const auto& prompt = prompts[index];
  const auto room = model.spec().context - static_cast<std::int64_t>(prompt.size());
  if (prompt.empty()) fail("the prompt is empty: give at least one token");
  if (room <= 0)
    fail("the prompt has {} tokens, which fills the model's context of {}: shorten it",
         prompt.size(), model.spec().context);
  const auto left =
      options.max_length > 0 ? options.max_length - static_cast<std::int64_t>(prompt.size()) : room;
  if (left <= 0)
    fail(
        "the prompt has {} tokens, but the model's max_length of prompt plus answer is {}: shorten "
        "the prompt, or set --max-tokens",
        prompt.size(), options.max_length);
  return {index, std::min({options.max_tokens, room, left}),
          at::make_generator<at::CPUGeneratorImpl>(options.seed), prompt, prompt};
}

/// on_token(which prompt, token): false ends that answer.
void generate_all(Model& model, const std::vector<Tokens>& prompts, const GenerateOptions& options,
                  const std::function<bool(std::size_t, std::int32_t)>& on_token) {
  const torch::NoGradGuard no_grad;
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    answers.push_back(begin_answer(model, prompts, i, options));
  if (options.max_tokens == 0) return;
  KeyValueCache cache(model.spec().depth, std::ssize(prompts));
  const auto device = model.projection().weight.device();
  while (!answers.empty()) {
    auto context = continuation(answers, cache, device);
    if (options.base_alone) context = context.base_alone();
    const at::Tensor last = last_rows(model.features(context), context.batch());
    const at::Tensor logits = model.projection().forward(last, context);
    std::vector<Answer> unfinished;
    std::vector<std::int64_t> kept;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      auto& answer = answers[i];
      const auto token =
          choose(logits[static_cast<std::int64_t>(i)], answer.seen, options, answer.generator);
      if (std::ranges::find(options.stop, token) != options.stop.end() ||
          !on_token(answer.prompt, token) || --answer.room == 0)
        continue;
      answer.next = {token};
      answer.seen.push_back(token);
      unfinished.push_back(std::move(answer));
      kept.push_back(static_cast<std::int64_t>(i));
    }
    if (kept.size() < answers.size()) cache.keep(kept);
    answers = std::move(unfinished);
  }
}

}  // namespace

at::Tensor next_probabilities(const at::Tensor& given, const Tokens& seen,
                              const GenerateOptions& options) {
  at::Tensor logits = given.to(at::kCPU, at::kFloat);
  if (options.repetition_penalty != 1) logits = penalised(logits, seen, options.repetition_penalty);
  if (options.temperature == 0) return at::one_hot(logits.argmax(), logits.size(0)).to(at::kFloat);
  at::Tensor probabilities = at::softmax(logits / options.temperature, 0);
  // Zeroed probabilities are shared out again before each next limit.
  if (options.top_k > 0) probabilities = likeliest(probabilities, options.top_k);
  if (options.top_p < 1)
    probabilities = nucleus(probabilities / probabilities.sum(), options.top_p);
  if (options.min_p > 0)
    probabilities =
        probabilities.masked_fill(probabilities < options.min_p * probabilities.max(), 0);
  return probabilities / probabilities.sum();
}

Tokens generate(Model& model, const Tokens& prompt, const GenerateOptions& options,
                const std::function<bool(std::int32_t)>& on_token) {
  Tokens generated;
  generate_all(model, {prompt}, options, [&](std::size_t, std::int32_t token) {
    generated.push_back(token);
    return !on_token || on_token(token);
  });
  return generated;
}

std::vector<Tokens> generate_each(Model& model, const std::vector<Tokens>& prompts,
                                  const GenerateOptions& options) {
  std::vector<Tokens> generated(prompts.size());
  generate_all(model, prompts, options, [&](std::size_t prompt, std::int32_t token) {
    generated[prompt].push_back(token);
    return true;
  });
  return generated;
}

}  // namespace attune::nn
