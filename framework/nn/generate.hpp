// Samples continuations, token by token, with a cache of keys and values.
#pragma once
#include <attune/model.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace attune::nn {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  double temperature = 0;  // 0: the likeliest token each time
  double top_p = 1;        // sample among the likeliest tokens that together have this probability (Holtzman et al. 2020, arXiv:1904.09751)
  std::uint64_t seed = 0;
  std::vector<std::int32_t> stop = {};  // ends after any of these; it is not part of the result
};

using Tokens = std::vector<std::int32_t>;

/// Tokens that follow the prompt. Ends at a stop token, after max_tokens, or where the model's context ends. on_token sees each token as
/// it comes; false from it ends generation. Error for an empty prompt, or one that fills the context.
Tokens generate(Model& model, const Tokens& prompt, const GenerateOptions& options, const std::function<bool(std::int32_t)>& on_token = {});

/// The same for several prompts at once, which share every pass over the weights: what follows each is what follows it alone.
std::vector<Tokens> generate_each(Model& model, const std::vector<Tokens>& prompts, const GenerateOptions& options);

}  // namespace attune::nn
