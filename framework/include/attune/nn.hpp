// Building blocks for model and strategy authors. Layers do not initialise their parameters: these
// are loaded, or set by the creator of the layer. A parameter has LibTorch's default dtype at the
// time of its construction.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>
#include <attune/linear.hpp>
#include <attune/weights.hpp>
#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

ATTUNE_API_BEGIN
namespace attune::nn {

/// A trained parameter in the dtype of a product. Float32 becomes bfloat16 so that small changes
/// are kept on average, where rounding to the nearest number loses them. Its gradient is that of
/// `values`.
at::Tensor rounded(const at::Tensor& values, at::ScalarType dtype);

/// y = x / sqrt(mean(x^2) + eps) * (offset + weight) over the last dimension [width] (Zhang and
/// Sennrich 2019, arXiv:1910.07467, equation 4). The mean is at least float32. Gemma uses offset =
/// 1, because its weights are stored around 0. Saves x and one number per row for the backward
/// pass.
class RMSNorm : public torch::nn::Module {
 public:
  RMSNorm(std::int64_t width, double eps, double offset = 0);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;

 private:
  double eps_;
  double offset_;
};

/// Layer normalisation over the last dimension [width] (Ba et al. 2016, arXiv:1607.06450).
class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;
  at::Tensor bias;

 private:
  double eps_;
};

/// Base class of layers that accept deltas; each is registered as a sub-module. Layer is the
/// derived class, and Change must have merge(Layer&).
template <class Layer, class Change>
class Changeable : public torch::nn::Module {
 public:
  void add_delta(std::string name, std::shared_ptr<Change> delta) {
    deltas_.push_back(this->register_module(std::move(name), std::move(delta)));
  }
  const std::vector<std::shared_ptr<Change>>& deltas() const { return deltas_; }
  /// Folds all deltas into the weight and removes them.
  void merge_deltas() {
    const at::NoGradGuard no_grad;
    for (auto& delta : deltas_) delta->merge(static_cast<Layer&>(*this));
    for (auto& child : this->named_children()) this->unregister_module(child.key());
    deltas_.clear();
  }

 protected:
  /// Passes y, the layer's output for x, through each delta that acts in this pass.
  at::Tensor changed(const at::Tensor& x, at::Tensor y, ForwardContext& context) {
    for (auto& delta : deltas_)
      if (context.acts(delta->owner))
        y = delta->forward(static_cast<const Layer&>(*this), x, y, context);
    return y;
  }
  std::vector<std::shared_ptr<Change>> deltas_;
};

class Embedding;

/// A trainable change to one embedding, analogous to Delta for a linear layer.
class EmbeddingDelta : public torch::nn::Module {
 public:
  std::int64_t owner = 0;  // as Delta::owner
  /// Returns the layer's new output. ids: the layer's input, int64 [...]. y: output of the layer
  /// and the preceding deltas, [..., width].
  virtual at::Tensor forward(const Embedding& base, const at::Tensor& ids, const at::Tensor& y,
                             ForwardContext& context) = 0;
  /// Folds the delta into the layer's weight, in place, so that the output stays the same.
  virtual void merge(Embedding& base) const = 0;
};

/// Maps ids, int64 [...], to rows of weight [rows, width], followed by each delta in turn.
class Embedding : public Changeable<Embedding, EmbeddingDelta> {
 public:
  Embedding(std::int64_t rows, std::int64_t width);
  at::Tensor forward(const at::Tensor& ids, ForwardContext& context);
  at::Tensor weight;
};

/// All layers of this type below root with their dotted names, in registration order.
template <class Layer>
std::vector<std::pair<std::string, std::shared_ptr<Layer>>> layers_of(torch::nn::Module& root) {
  std::vector<std::pair<std::string, std::shared_ptr<Layer>>> found;
  for (auto& item : root.named_modules("", false))
    if (auto layer = std::dynamic_pointer_cast<Layer>(item.value()))
      found.emplace_back(item.key(), std::move(layer));
  return found;
}

struct ConvolutionOptions {
  std::int64_t kernel = 1;  // width and height
  std::int64_t stride = 1;
  std::int64_t padding = 0;  // rows and columns of zeros on each side
  std::int64_t groups = 1;   // equal to the number of channels: depthwise convolution
  bool with_bias = false;
};

class Conv2d;

/// A trainable change to one convolution, analogous to Delta for a linear layer.
class ConvolutionDelta : public torch::nn::Module {
 public:
  std::int64_t owner = 0;  // as Delta::owner
  /// Returns the layer's new output. x: the layer's input [B, in, height, width]. y: output of the
  /// layer and the preceding deltas.
  virtual at::Tensor forward(const Conv2d& base, const at::Tensor& x, const at::Tensor& y,
                             ForwardContext& context) = 0;
  /// Folds the delta into the layer's weight, in place, so that inference gives the same output.
  virtual void merge(Conv2d& base) const = 0;
};

/// 2-D convolution of x [B, in, height, width], followed by each delta in turn. weight: [out, in /
/// groups, kernel, kernel]. bias: [out], may be undefined.
class Conv2d : public Changeable<Conv2d, ConvolutionDelta> {
 public:
  Conv2d(std::int64_t in, std::int64_t out, const ConvolutionOptions& options);
  at::Tensor forward(const at::Tensor& x, ForwardContext& context);
  const ConvolutionOptions& options() const { return options_; }

  at::Tensor weight;
  at::Tensor bias;

 private:
  ConvolutionOptions options_;
};

/// y = (x - running_mean) / sqrt(running_var + eps) * weight + bias, per channel of x [B, width,
/// height, width] (Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2). The statistics are the
/// loaded ones, also in training, so a sample's output does not depend on the rest of its batch or
/// on how the batch is split.
class BatchNorm2d : public torch::nn::Module {
 public:
  BatchNorm2d(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;
  at::Tensor bias;
  // buffers
  at::Tensor running_mean;
  at::Tensor running_var;

 private:
  double eps_;
};

/// Cosines and sines of the rotation angles of T positions, float32 [T, d/2].
struct Rotation {
  at::Tensor cosine;
  at::Tensor sine;
};

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, section 3.2.2). The angle of pair i
/// is position * base^(-2i/d).
class RotaryEmbedding {
 public:
  /// Precomputes the table for positions 0 .. context-1.
  RotaryEmbedding(std::int64_t head_width, std::int64_t context, double base);
  /// The angle of pair i is position * frequencies[i] (float32 [d/2]). Cosines and sines are scaled
  /// by `factor`. For context extension methods.
  RotaryEmbedding(const at::Tensor& frequencies, std::int64_t context, double factor = 1);
  /// Table rows for positions, int64 [T].
  Rotation at(const at::Tensor& positions);

 private:
  at::Tensor cosine_;
  at::Tensor sine_;
};

/// Rotates x [T, heads, d] by `rotation`. Element i is paired with element i + d/2 (Hugging Face's
/// convention for Llama).
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation);

struct AttentionOptions {
  double scale = 1;  // of the scores, usually 1 / sqrt(d)
  // a position attends to itself and earlier positions; otherwise to the whole sample
  bool causal = true;
  // sliding window (Mistral): maximum number of attended positions, including itself; 0: no limit
  std::int64_t window = 0;
  // scores = softcap * tanh(scores / softcap) (Gemma 2); 0 disables it
  double softcap = 0;
};

/// softmax(q k^T scale) v within each sample of the batch (Vaswani et al. 2017, arXiv:1706.03762,
/// equation 1). q: [T, H, d]. k, v: [T, Hkv, d], where H is a multiple of Hkv. Returns [T, H, d].
/// Keys and values of virtual tokens are prepended, and in generation also the cached ones of the
/// context's block.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const ForwardContext& context, const AttentionOptions& options);

/// silu(gate) * up (Shazeer 2020, arXiv:2002.05202, section 2). Saves only its two arguments for
/// the backward pass.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// A model's image input: number of channels, size in pixels, and normalisation.
struct PictureScale {
  std::int64_t channels = 3;
  std::int64_t size = 224;
  // per channel, for values from 0 to 1
  std::vector<double> mean;
  std::vector<double> deviation;
};
/// Reads num_channels, image_size, image_mean and image_std from config.json (the last two follow
/// transformers' preprocessor_config.json). `mean` and `deviation` are the fallbacks for the last
/// two.
PictureScale picture_scale(const nlohmann::json& config, const std::vector<double>& mean,
                           const std::vector<double>& deviation);
/// Converts columns["pixels"] of the batch, uint8 [B, c, height, width], into model input (pixels /
/// 255 - mean) / deviation, [B, channels, size, size]. Other sizes are resized (bilinear,
/// antialiased), and a single grey channel is repeated. Error if the column is missing or has
/// another number of channels.
at::Tensor pictures(const Batch& batch, const PictureScale& scale,
                    const at::TensorOptions& options);

/// Returns the module with this dotted name below root. Creates it and its parents if necessary.
torch::nn::Module& module_at(torch::nn::Module& root, const std::string& name);
/// Registers a layer below root under a dotted name.
template <class Layer>
std::shared_ptr<Layer> register_at(torch::nn::Module& root, const std::string& name,
                                   std::shared_ptr<Layer> layer) {
  const auto dot = name.rfind('.');
  auto& parent = dot == std::string::npos ? root : module_at(root, name.substr(0, dot));
  return parent.register_module(name.substr(dot == std::string::npos ? 0 : dot + 1),
                                std::move(layer));
}

/// Maps a parameter to its name in the source; "" leaves the parameter unchanged.
using Rename = std::function<std::string(const std::string& parameter)>;

/// Loads every parameter and buffer of the module from the source. A tensor is shared, not copied,
/// if its dtype matches; otherwise it is converted. One Error lists all names that are missing or
/// have another shape.
void load_parameters(torch::nn::Module& module, WeightSource& source, const Rename& rename = {});

/// All parameters and buffers of the module in the layout of weight files
/// (Linear::is_stored_transposed).
std::vector<std::pair<std::string, at::Tensor>> stored_tensors(torch::nn::Module& module);

/// Initialises a new head as BERT does: weight ~ N(0, 0.02^2) from the global generator, bias 0.
void initialise_head(Linear& head);

/// Number of a classifier's outputs: the number of the data set's labels; otherwise the number in
/// config.json; otherwise two, as in transformers.
std::int64_t count_labels(const nlohmann::json& config, const std::vector<std::string>& labels);
/// Writes the names of a classifier's outputs into config.json in transformers' format. No effect
/// if `labels` is empty.
void set_labels(nlohmann::json& config, const std::vector<std::string>& labels);
/// Whether the source has a tensor with this name and shape.
bool has_tensor(const WeightSource& source, const std::string& name,
                const std::vector<std::int64_t>& shape);

/// Reads a field of config.json as bool, std::int64_t, double or std::string. Error if the type
/// differs, or if the field is absent and there is no fallback.
template <class T>
ATTUNE_API T config_value(const nlohmann::json& config, const std::string& key);
template <class T>
ATTUNE_API T config_value(const nlohmann::json& config, const std::string& key, T fallback);
/// Reads an integer from 1 to 2^24; Error for anything else.
std::int64_t config_size(const nlohmann::json& config, const std::string& key);
/// Error if config.json belongs to another model family; it names the right plugin.
void require_model_type(const nlohmann::json& config, const std::string& type);

/// Whether pattern equals name or a suffix of it that follows a dot. '*' matches any characters:
/// "q_proj", "layers.3.*", "*.bias".
bool name_matches(const std::string& pattern, const std::string& name);
/// Returns the names that match any of the patterns, in the order of `names`. Error for a pattern
/// that matches nothing; it suggests similar names. `option` is the option's name in the message.
std::vector<std::string> select_names(const std::vector<std::string>& patterns,
                                      const std::vector<std::string>& names,
                                      const std::string& option);

}  // namespace attune::nn
ATTUNE_API_END
