// Token-by-token text generation with a key-value cache.
#pragma once
#include <attune/model.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace attune::nn {

/// Sampling options: top_p (Holtzman et al. 2020, arXiv:1904.09751), top_k (Fan et al. 2018,
/// arXiv:1805.04833), min_p (Nguyen et al. 2024, arXiv:2407.01082), repetition penalty (Keskar et
/// al. 2019, arXiv:1909.05858).
struct GenerateOptions {
  std::int64_t max_tokens = 128;
  // maximum length of prompt and answer together; 0: limited only by the model's context
  std::int64_t max_length = 0;
  double temperature = 0;  // 0: greedy decoding
  std::int64_t top_k = 0;  // sample from this number of most likely tokens; 0: all
  // sample from the most likely tokens with this cumulative probability
  double top_p = 1;
  // sample from tokens with at least this fraction of the highest probability
  double min_p = 0;
  // divides positive logits of tokens in prompt and answer so far, and multiplies negative ones
  double repetition_penalty = 1;
  std::uint64_t seed = 0;
  bool base_alone = false;              // disable deltas and virtual tokens
  std::vector<std::int32_t> stop = {};  // ends at any of these tokens, which the result omits
};

using Tokens = std::vector<std::int32_t>;

/// Probabilities of the next token after `seen`, float32 [outputs], from the logits [outputs]. With
/// temperature 0 the most likely token has probability 1. Options are applied in the order of
/// transformers: penalty, temperature, top_k, top_p, min_p.
at::Tensor next_probabilities(const at::Tensor& logits, const Tokens& seen,
                              const GenerateOptions& options);

/// Generates a continuation of the prompt. Ends at a stop token, after max_tokens, or at the
/// model's context length. on_token receives each token; if it returns false, generation ends.
/// Error for an empty prompt, or one that fills the context.
Tokens generate(Model& model, const Tokens& prompt, const GenerateOptions& options,
                const std::function<bool(std::int32_t)>& on_token = {});

/// Generates for several prompts, which share each forward pass. Results equal those of separate
/// calls.
std::vector<Tokens> generate_each(Model& model, const std::vector<Tokens>& prompts,
                                  const GenerateOptions& options);

}  // namespace attune::nn
