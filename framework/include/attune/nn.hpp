// Building blocks for model and strategy authors. No layer initialises its parameters: they are
// loaded, or set by whoever makes the layer. A parameter has the dtype that was LibTorch's default
// when its layer was made.
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

/// y = x / sqrt(mean(x^2) + eps) * (offset + weight) over the last dimension [width]; the mean in
/// float32 at least. Keeps x and one number per row for the backward pass. Zhang and Sennrich 2019
/// (arXiv:1910.07467), equation 4; with an offset of 1 as in Gemma, whose weights are kept around
/// 0.
class RMSNorm : public torch::nn::Module {
 public:
  RMSNorm(std::int64_t width, double eps, double offset = 0);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;

 private:
  double eps_;
  double offset_;
};

/// Ba et al. 2016 (arXiv:1607.06450), over the last dimension [width].
class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight;
  at::Tensor bias;

 private:
  double eps_;
};

/// A layer's slot for trained changes, each registered as a sub-module of it; Layer derives from
/// this, Change has merge(Layer&).
template <class Layer, class Change>
class Changeable : public torch::nn::Module {
 public:
  void add_delta(std::string name, std::shared_ptr<Change> delta) {
    deltas_.push_back(this->register_module(std::move(name), std::move(delta)));
  }
  const std::vector<std::shared_ptr<Change>>& deltas() const { return deltas_; }
  /// Folds every delta into the weight and removes them.
  void merge_deltas() {
    const at::NoGradGuard no_grad;
    for (auto& delta : deltas_) delta->merge(static_cast<Layer&>(*this));
    for (auto& child : this->named_children()) this->unregister_module(child.key());
    deltas_.clear();
  }

 protected:
  /// y, the layer's output for x, after each delta that acts in this pass.
  at::Tensor changed(const at::Tensor& x, at::Tensor y, ForwardContext& context) {
    for (auto& delta : deltas_)
      if (context.acts(delta->owner))
        y = delta->forward(static_cast<const Layer&>(*this), x, y, context);
    return y;
  }
  std::vector<std::shared_ptr<Change>> deltas_;
};

class Embedding;

/// A trained change to one embedding, as Delta is to a linear layer.
class EmbeddingDelta : public torch::nn::Module {
 public:
  std::int64_t owner = 0;  // as Delta's
  /// ids: the layer's input, int64 [...]; y: its output so far [..., width]. Returns the new
  /// output.
  virtual at::Tensor forward(const Embedding& base, const at::Tensor& ids, const at::Tensor& y,
                             ForwardContext& context) = 0;
  /// Changes the layer's weight, in place, so that it gives the same output.
  virtual void merge(Embedding& base) const = 0;
};

/// ids int64 [...] -> rows of weight [rows, width]. Then each delta in turn.
class Embedding : public Changeable<Embedding, EmbeddingDelta> {
 public:
  Embedding(std::int64_t rows, std::int64_t width);
  at::Tensor forward(const at::Tensor& ids, ForwardContext& context);
  at::Tensor weight;
};

/// Every layer of this type below root with its dotted name, in registration order.
template <class Layer>
std::vector<std::pair<std::string, std::shared_ptr<Layer>>> layers_of(torch::nn::Module& root) {
  std::vector<std::pair<std::string, std::shared_ptr<Layer>>> found;
  for (auto& item : root.named_modules("", false))
    if (auto layer = std::dynamic_pointer_cast<Layer>(item.value()))
      found.emplace_back(item.key(), std::move(layer));
  return found;
}

struct ConvolutionOptions {
  std::int64_t kernel = 1;  // of width and height alike
  std::int64_t stride = 1;
  std::int64_t padding = 0;  // zeros on every side
  std::int64_t groups = 1;   // the number of channels: depthwise
  bool with_bias = false;
};

class Conv2d;

/// A trained change to one convolution, as Delta is to a linear layer.
class ConvolutionDelta : public torch::nn::Module {
 public:
  std::int64_t owner = 0;  // as Delta's
  /// x: the layer's input [B, in, height, width]; y: its output so far. Returns the new output.
  virtual at::Tensor forward(const Conv2d& base, const at::Tensor& x, const at::Tensor& y,
                             ForwardContext& context) = 0;
  /// Changes the layer's weight, in place, so that it gives the same output in inference.
  virtual void merge(Conv2d& base) const = 0;
};

/// Pictures x [B, in, height, width]; weight [out, in / groups, kernel, kernel], bias [out] (maybe
/// undefined). Then each delta in turn.
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

/// y = (x - running_mean) / sqrt(running_var + eps) * weight + bias for every channel of x [B,
/// width, height, width]. The statistics are those that came with the weights, in training too: a
/// sample's result does not depend on what else is in its batch, nor on how a batch was split.
/// Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithm 2.
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

/// Cosines and sines of some positions, float32 [T, d/2].
struct Rotation {
  at::Tensor cosine;
  at::Tensor sine;
};

/// Rotary position embedding, Su et al. 2021 (arXiv:2104.09864), section 3.2.2: pair i is turned by
/// position * base^(-2i/d).
class RotaryEmbedding {
 public:
  /// The table for positions 0 .. context-1 is computed here, once.
  RotaryEmbedding(std::int64_t head_width, std::int64_t context, double base);
  /// Pair i is turned by position * frequencies[i] (float32 [d/2]), and both parts are scaled by
  /// `factor`: for embeddings that were stretched to longer contexts.
  RotaryEmbedding(const at::Tensor& frequencies, std::int64_t context, double factor = 1);
  /// positions int64 [T]
  Rotation at(const at::Tensor& positions);

 private:
  at::Tensor cosine_;
  at::Tensor sine_;
};

/// x [T, heads, d] turned by rotation. Element i pairs with i + d/2 (Hugging Face's convention for
/// Llama).
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation);

struct AttentionOptions {
  double scale = 1;  // of the scores: 1 / sqrt(d) most of the time
  // a position sees itself and what came before; otherwise the whole sample
  bool causal = true;
  // a position sees this many at most, itself among them (Mistral's sliding window); 0: all
  std::int64_t window = 0;
  // scores become softcap tanh(scores / softcap) (Gemma 2); 0: as they are
  double softcap = 0;
};

/// softmax(q k^T scale) v within each sample of the batch; q [T, H, d]; k, v [T, Hkv, d] with H a
/// multiple of Hkv; returns [T, H, d]. While generating, the keys and values that the context's
/// block has seen before come first, and those of virtual tokens before all. Vaswani et al. 2017
/// (arXiv:1706.03762), equation 1.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const ForwardContext& context, const AttentionOptions& options);

/// silu(gate) * up; keeps only these two for the backward pass. Shazeer 2020 (arXiv:2002.05202),
/// section 2.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// What a model takes of pictures.
struct PictureScale {
  std::int64_t channels = 3;
  std::int64_t size = 224;
  // of each channel, of values from 0 to 1
  std::vector<double> mean;
  std::vector<double> deviation;
};
/// From config.json: num_channels, image_size, and image_mean and image_std (transformers'
/// preprocessor_config.json); the last two fall back to those given.
PictureScale picture_scale(const nlohmann::json& config, const std::vector<double>& mean,
                           const std::vector<double>& deviation);
/// The batch's columns["pixels"], uint8 [B, c, height, width], as [B, channels, size, size]:
/// (pixels / 255 - mean) / deviation, scaled (bilinear, with antialiasing) where they are of
/// another size; grey ones have their one channel repeated. Error when there are none, or of other
/// channels.
at::Tensor pictures(const Batch& batch, const PictureScale& scale,
                    const at::TensorOptions& options);

/// The module of this dotted name below root, made with those on the way to it where they are not
/// there yet.
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

/// The name in the source of this parameter; "" leaves the parameter as it is.
using Rename = std::function<std::string(const std::string& parameter)>;

/// Gives every parameter and buffer of module its tensor from source: without a copy where the
/// dtype is the parameter's own, else converted. One Error lists every name that is missing or has
/// another shape.
void load_parameters(torch::nn::Module& module, WeightSource& source, const Rename& rename = {});

/// What a file of the module's weights holds: every parameter and buffer, as files hold it
/// (Linear::is_stored_transposed).
std::vector<std::pair<std::string, at::Tensor>> stored_tensors(torch::nn::Module& module);

/// A new layer: weight ~ N(0, 0.02^2) from the global generator, as BERT's heads are; bias 0.
void initialise_head(Linear& head);

/// A classifier's outputs: a label of the data set each; else as many as config.json says; else
/// two, as in transformers.
std::int64_t count_labels(const nlohmann::json& config, const std::vector<std::string>& labels);
/// Puts the names of a classifier's outputs into config.json, as transformers has them. Without
/// labels it stays as it is.
void set_labels(nlohmann::json& config, const std::vector<std::string>& labels);
/// Whether source has a tensor of this name and shape.
bool has_tensor(const WeightSource& source, const std::string& name,
                const std::vector<std::int64_t>& shape);

/// A field of config.json (bool, std::int64_t, double, std::string). Error when it is of another
/// type or, without a fallback, absent.
template <class T>
ATTUNE_API T config_value(const nlohmann::json& config, const std::string& key);
template <class T>
ATTUNE_API T config_value(const nlohmann::json& config, const std::string& key, T fallback);
/// An integer from 1 to 2^24.
std::int64_t config_size(const nlohmann::json& config, const std::string& key);
/// Error naming the right plugin when config.json is of another family.
void require_model_type(const nlohmann::json& config, const std::string& type);

/// Whether pattern is name, or its end after a dot; '*' stands for any characters: "q_proj",
/// "layers.3.*", "*.bias".
bool name_matches(const std::string& pattern, const std::string& name);
/// Those of names that match any of the patterns, in their order. Error with near names for a
/// pattern that matches none; option is the patterns' own name in the message.
std::vector<std::string> select_names(const std::vector<std::string>& patterns,
                                      const std::vector<std::string>& names,
                                      const std::string& option);

}  // namespace attune::nn
ATTUNE_API_END
