// Samples continuations, token by token, with a cache of keys and values.
#pragma once
#include <attune/model.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace attune::nn {

/// Holtzman et al. 2020 (arXiv:1904.09751) for top_p, Fan et al. 2018 (arXiv:1805.04833) for top_k,
/// Nguyen et al. 2024 (arXiv:2407.01082) for min_p, Keskar et al. 2019 (arXiv:1909.05858) for the
/// penalty.
struct GenerateOptions {
  std::int64_t max_tokens = 128;
  // of prompt and answer together; 0: the model's context alone limits it
  std::int64_t max_length = 0;
  double temperature = 0;  // 0: the likeliest token each time
  std::int64_t top_k = 0;  // number of tokens to sample from, the likeliest ones; 0: all
  // sample among the likeliest tokens that together have this probability
  double top_p = 1;
  // sample among tokens with at least this share of the likeliest one's probability
  double min_p = 0;
  // divides the logits of tokens in prompt and answer so far; negative logits are multiplied
  double repetition_penalty = 1;
  std::uint64_t seed = 0;
  bool base_alone = false;              // without what strategies added to the model
  std::vector<std::int32_t> stop = {};  // ends after any of these; it is not part of the result
};

using Tokens = std::vector<std::int32_t>;

/// The probability of each token of logits [outputs] under the options, which follows the tokens
/// `seen`, float32. With temperature 0: 1 for the likeliest. In the order of transformers: penalty,
/// temperature, top_k, top_p, min_p.
at::Tensor next_probabilities(const at::Tensor& logits, const Tokens& seen,
                              const GenerateOptions& options);

/// Tokens that follow the prompt. Ends at a stop token, after max_tokens, or where the model's
/// context ends. on_token sees each token as it comes; false from it ends generation. Error for an
/// empty prompt, or one that fills the context.
Tokens generate(Model& model, const Tokens& prompt, const GenerateOptions& options,
                const std::function<bool(std::int32_t)>& on_token = {});

/// The same for several prompts at once, which share every pass over the weights: what follows each
/// is what follows it alone.
std::vector<Tokens> generate_each(Model& model, const std::vector<Tokens>& prompts,
                                  const GenerateOptions& options);

}  // namespace attune::nn
