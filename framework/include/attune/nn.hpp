// Building blocks for model and strategy authors. No layer initialises its parameters: they are loaded, or set by whoever makes the
// layer. A parameter has the dtype that was LibTorch's default when its layer was made.
#pragma once
#include <attune/batch.hpp>
#include <attune/linear.hpp>
#include <attune/weights.hpp>
#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace attune::nn {

/// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension [width]; the mean in float32 at least. Keeps x and one number per row
/// for the backward pass. Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4.
class RMSNorm : public torch::nn::Module {
 public:
  RMSNorm(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;

 private:
  double eps_;
};

/// Ba et al. 2016 (arXiv:1607.06450), over the last dimension [width].
class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight, bias;

 private:
  double eps_;
};

/// ids int64 [...] -> rows of weight [rows, width].
class Embedding : public torch::nn::Module {
 public:
  Embedding(std::int64_t rows, std::int64_t width);
  at::Tensor forward(const at::Tensor& ids);
  at::Tensor weight;
};

/// Cosines and sines of some positions, float32 [T, d/2].
struct Rotation {
  at::Tensor cosine, sine;
};

/// Rotary position embedding, Su et al. 2021 (arXiv:2104.09864), section 3.2.2: pair i is turned by position * base^(-2i/d).
class RotaryEmbedding {
 public:
  /// The table for positions 0 .. context-1 is computed here, once.
  RotaryEmbedding(std::int64_t head_width, std::int64_t context, double base);
  /// Pair i is turned by position * frequencies[i] (float32 [d/2]), and both parts are scaled by `factor`: for embeddings that were stretched to
  /// longer contexts.
  RotaryEmbedding(const at::Tensor& frequencies, std::int64_t context, double factor = 1);
  /// positions int64 [T]
  Rotation at(const at::Tensor& positions);

 private:
  at::Tensor cosine_, sine_;
};

/// x [T, heads, d] turned by rotation. Element i pairs with i + d/2 (Hugging Face's convention for Llama).
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation);

struct AttentionOptions {
  double scale = 1;          // of the scores: 1 / sqrt(d) most of the time
  bool causal = true;        // a position sees itself and what came before; otherwise the whole sample
  std::int64_t window = 0;   // a position sees this many at most, itself among them (Mistral's sliding window); 0: all
  double softcap = 0;        // scores become softcap tanh(scores / softcap) (Gemma 2); 0: as they are
};

/// softmax(q k^T scale) v within each sample of the batch; q [T, H, d]; k, v [T, Hkv, d] with H a multiple of Hkv; returns [T, H, d].
/// While generating, the keys and values of block `block` seen before come first, and a strategy's prefix before all.
/// Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
at::Tensor attention(std::int64_t block, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch, const AttentionOptions& options);

/// silu(gate) * up; keeps only these two for the backward pass. Shazeer 2020 (arXiv:2002.05202), section 2.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// The name in the source of this parameter; "" leaves the parameter as it is.
using Rename = std::function<std::string(const std::string& parameter)>;

/// Gives every parameter of module its tensor from source: without a copy where the dtype is the parameter's own, else converted.
/// One Error lists every name that is missing or has another shape.
void load_parameters(torch::nn::Module& module, WeightSource& source, const Rename& rename = {});

/// A new layer: weight ~ N(0, 0.02^2) from the global generator, as BERT's heads are; bias 0.
void initialise_head(Linear& head);

/// A field of config.json (bool, std::int64_t, double, std::string). Error when it is of another type or, without a fallback, absent.
template <class T> T config_value(const nlohmann::json& config, const std::string& key);
template <class T> T config_value(const nlohmann::json& config, const std::string& key, T fallback);
/// An integer from 1 to 2^24.
std::int64_t config_size(const nlohmann::json& config, const std::string& key);
/// Error naming the right plugin when config.json is of another family.
void require_model_type(const nlohmann::json& config, const std::string& type);

/// Whether pattern is name, or its end after a dot; '*' stands for any characters: "q_proj", "layers.3.*", "*.bias".
bool name_matches(const std::string& pattern, const std::string& name);
/// Those of names that match any of the patterns, in their order. Error with near names for a pattern that matches none; option is
/// the patterns' own name in the message.
std::vector<std::string> select_names(const std::vector<std::string>& patterns, const std::vector<std::string>& names, const std::string& option);

}  // namespace attune::nn
