// EfficientNet (Tan and Le 2019, arXiv:1905.11946) and EfficientNet-Lite: mobile inverted
// bottlenecks that classify pictures.
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cmath>
#include <numeric>

namespace {

using attune::fail;
using attune::ForwardContext;
using attune::nn::BatchNorm2d;
using attune::nn::config_size;
using attune::nn::config_value;
using attune::nn::Conv2d;
using attune::nn::Linear;
using nlohmann::json;
using Integers = std::vector<std::int64_t>;

struct BlockConfig {
  // squeezed: channels between squeeze and excitation; 0: without
  std::int64_t in;
  std::int64_t out;
  std::int64_t expansion;
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t squeezed;
  bool adds_input;
};

struct Config {
  std::int64_t stem;
  std::int64_t width;
  std::int64_t labels;
  double eps;
  bool is_relu6;
  std::vector<BlockConfig> blocks;
  attune::nn::PictureScale scale;
};

/// Channels times the width coefficient, in multiples of the divisor, and not below nine tenths of
/// it.
std::int64_t scaled_channels(const json& config, std::int64_t channels) {
  const auto divisor = config_value<std::int64_t>(config, "depth_divisor", 8);
  const auto wanted =
      static_cast<double>(channels) * config_value<double>(config, "width_coefficient", 2.0);
  const auto half = static_cast<double>(divisor) / 2;
  auto rounded = std::max(divisor, static_cast<std::int64_t>(wanted + half) / divisor * divisor);
  if (static_cast<double>(rounded) < 0.9 * wanted) rounded += divisor;
  return rounded;
}

Integers integers(const json& config, const char* key) {
  const auto found = config.find(key);
  const bool fits =
      found != config.end() && found->is_array() && !found->empty() && found->size() < 1000 &&
      std::ranges::all_of(
          *found,
          [](const json& one) { return one.is_number_integer() && one >= 1 && one <= (1 << 16); });
  if (!fits)
    fail(
        "config.json lacks '{}', a list of positive integers: take the config.json that came with "
        "the weights",
        key);
  return found->get<Integers>();
}

std::vector<BlockConfig> read_blocks(const json& config) {
  const auto in = integers(config, "in_channels");
  const auto out = integers(config, "out_channels");
  const auto kernels = integers(config, "kernel_sizes");
  const auto strides = integers(config, "strides");
  const auto repeats = integers(config, "num_block_repeats");
  const auto expansions = integers(config, "expand_ratios");
  for (const auto* list : {&out, &kernels, &strides, &repeats, &expansions})
    if (list->size() != in.size())
      fail(
          "config.json lists {} stages in one place and {} in another: take the config.json that "
          "came with the weights",
          in.size(), list->size());
  const auto depth = config_value<double>(config, "depth_coefficient", 3.1);
  const auto squeeze = config_value<double>(config, "squeeze_expansion_ratio", 0.25);
  std::vector<BlockConfig> blocks;
  for (std::size_t stage = 0; stage < in.size(); ++stage) {
    const auto first_in = scaled_channels(config, in[stage]);
    const auto width = scaled_channels(config, out[stage]);
    const auto count =
        static_cast<std::int64_t>(std::ceil(depth * static_cast<double>(repeats[stage])));
    for (std::int64_t repeat = 0; repeat < count; ++repeat) {
      BlockConfig block{.in = repeat == 0 ? first_in : width,
                        .out = width,
                        .expansion = expansions[stage],
                        .kernel = kernels[stage],
                        .stride = repeat == 0 ? strides[stage] : 1,
                        .squeezed = 0,
                        .adds_input = repeat > 0};
      if (squeeze > 0)
        block.squeezed = std::max<std::int64_t>(
            1, static_cast<std::int64_t>(static_cast<double>(block.in) * squeeze));
      blocks.push_back(block);
    }
  }
  return blocks;
}

Config read_config(const json& json, const std::vector<std::string>& labels, std::int64_t size) {
  attune::nn::require_model_type(json, "efficientnet");
  const auto activation = config_value<std::string>(json, "hidden_act", "swish");
  if (activation != "swish" && activation != "silu" && activation != "relu6")
    fail(
        "config.json has hidden_act \"{}\", which plugin 'efficientnet' does not support: "
        "\"swish\" and \"relu6\" are",
        activation);
  const auto pooling = config_value<std::string>(json, "pooling_type", "mean");
  if (pooling != "mean")
    fail(
        "config.json has pooling_type \"{}\", which plugin 'efficientnet' does not support: only "
        "\"mean\" is",
        pooling);
  Config c{};
  c.stem = scaled_channels(json, 32);
  c.width = config_size(json, "hidden_dim");
  c.labels = attune::nn::count_labels(json, labels);
  c.eps = config_value<double>(json, "batch_norm_eps", 1e-3);
  c.is_relu6 = activation == "relu6";
  c.blocks = read_blocks(json);
  // of ImageNet
  c.scale = attune::nn::picture_scale(json, {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225});
  if (size > 0) c.scale.size = size;
  return c;
}

/// A convolution whose result has 1 / stride of the input's width and height, rounded up. What is
/// missing of the padding on one side is on the right and below, as in TensorFlow.
at::Tensor convolved(Conv2d& layer, const at::Tensor& x, ForwardContext& context) {
  const auto kernel = layer.options().kernel;
  const auto stride = layer.options().stride;
  const auto missing = [&](std::int64_t size) {
    return std::max<std::int64_t>(0, ((size + stride - 1) / stride - 1) * stride + kernel - size);
  };
  const auto high = missing(x.size(2));
  const auto wide = missing(x.size(3));
  if (high == 0 && wide == 0) return layer.forward(x, context);
  return layer.forward(
      at::constant_pad_nd(x, {wide / 2, wide - wide / 2, high / 2, high - high / 2}), context);
}

/// A convolution and its normalisation, registered below one module.
struct Part {
  Part(torch::nn::Module& net, const std::string& module, const char* convolution_name,
       const char* norm_name, std::int64_t in, std::int64_t out, double eps,
       const attune::nn::ConvolutionOptions& options) {
    convolution = attune::nn::register_at(net, module + convolution_name,
                                          std::make_shared<Conv2d>(in, out, options));
    norm =
        attune::nn::register_at(net, module + norm_name, std::make_shared<BatchNorm2d>(out, eps));
  }
  at::Tensor forward(const at::Tensor& x, ForwardContext& context) {
    return norm->forward(convolved(*convolution, x, context));
  }

  std::shared_ptr<Conv2d> convolution;
  std::shared_ptr<BatchNorm2d> norm;
};

struct Activation {
  bool is_relu6;
  at::Tensor operator()(const at::Tensor& x) const {
    return is_relu6 ? at::hardtanh(x, 0, 6) : at::silu(x);
  }
};

struct Block {
  Block(torch::nn::Module& net, const std::string& prefix, const BlockConfig& b, double eps)
      : adds_input(b.adds_input),
        depthwise(net, prefix + "depthwise_conv.", "depthwise_conv", "depthwise_norm",
                  b.in * b.expansion, b.in * b.expansion, eps,
                  {.kernel = b.kernel, .stride = b.stride, .groups = b.in * b.expansion}),
        projection(net, prefix + "projection.", "project_conv", "project_bn", b.in * b.expansion,
                   b.out, eps, {}) {
    const auto inner = b.in * b.expansion;
    if (b.expansion != 1)
      expansion.emplace(net, prefix + "expansion.", "expand_conv", "expand_bn", b.in, inner, eps,
                        attune::nn::ConvolutionOptions{});
    if (b.squeezed == 0) return;
    reduce = attune::nn::register_at(
        net, prefix + "squeeze_excite.reduce",
        std::make_shared<Conv2d>(inner, b.squeezed,
                                 attune::nn::ConvolutionOptions{.with_bias = true}));
    expand = attune::nn::register_at(
        net, prefix + "squeeze_excite.expand",
        std::make_shared<Conv2d>(b.squeezed, inner,
                                 attune::nn::ConvolutionOptions{.with_bias = true}));
  }
  at::Tensor forward(const at::Tensor& h, const Activation& activation, ForwardContext& context) {
    at::Tensor x = expansion ? activation(expansion->forward(h, context)) : h;
    x = activation(depthwise.forward(x, context));
    if (reduce)
      x = x * expand->forward(activation(reduce->forward(x.mean({2, 3}, true), context)), context)
                  .sigmoid();
    x = projection.forward(x, context);
    return adds_input ? x + h : x;
  }

  bool adds_input;
  Part depthwise;
  Part projection;
  std::optional<Part> expansion;
  // squeeze and excitation (Hu et al. 2018, arXiv:1709.01507); null in the Lite models
  std::shared_ptr<Conv2d> reduce;
  std::shared_ptr<Conv2d> expand;
};

class EfficientNet final : public attune::Model {
 public:
  struct Options {
    std::int64_t size = 0;
    double dropout = 0;
    static void describe(attune::Schema<Options>& s) {
      s.key("size", &Options::size,
            "input resolution: images are scaled to size x size pixels; 0: the resolution that the "
            "weights were trained at")
          .range(0, 4096);
      s.key("dropout", &Options::dropout,
            "dropout probability of the classifier's input during training")
          .range(0, 0.9);
    }
  };
  EfficientNet(const Options& options, attune::ModelContext& context)
      : EfficientNet(options, context, read_config(context.config, context.labels, options.size)) {}

  at::Tensor embed(ForwardContext& context) override {
    return activation_(stem_.forward(
        attune::nn::pictures(context.batch(), scale_, classifier_->options()), context));
  }
  at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) override {
    return blocks_.at(static_cast<std::size_t>(index)).forward(h, activation_, context);
  }
  at::Tensor finish(const at::Tensor& h, ForwardContext& context) override {
    return context.dropout(activation_(top_->forward(h, context)).mean({2, 3}), dropout_);
  }
  Linear& projection() override { return *classifier_; }
  std::vector<std::string> head_modules() const override { return {"classifier"}; }
  torch::nn::Module& module() override { return *net_; }
  std::string block_name(std::int64_t index) const override {
    return fmt::format("efficientnet.encoder.blocks.{}.", index);
  }

  json config() const override {
    json config = config_;
    config["architectures"] = {"EfficientNetForImageClassification"};
    config["image_mean"] = scale_.mean;
    config["image_std"] = scale_.deviation;
    config["image_size"] = scale_.size;
    attune::nn::set_labels(config, labels_);
    return config;
  }

 private:
  EfficientNet(const Options& options, attune::ModelContext& context, const Config& c)
      : Model({.family = "efficientnet",
               .task = attune::Task::classification,
               .width = c.width,
               .depth = std::ssize(c.blocks),
               .context = 1,
               .outputs = c.labels}),
        config_(context.config),
        labels_(context.labels),
        dropout_(options.dropout),
        scale_(c.scale),
        activation_{c.is_relu6},
        net_(std::make_shared<torch::nn::Module>()),
        stem_(*net_, "efficientnet.embeddings.", "convolution", "batchnorm", c.scale.channels,
              c.stem, c.eps, {.kernel = 3, .stride = 2}) {
    for (std::int64_t index = 0; index < spec().depth; ++index)
      blocks_.emplace_back(*net_, block_name(index), c.blocks[static_cast<std::size_t>(index)],
                           c.eps);
    top_.emplace(*net_, "efficientnet.encoder.", "top_conv", "top_bn", c.blocks.back().out, c.width,
                 c.eps, attune::nn::ConvolutionOptions{});
    classifier_ =
        net_->register_module("classifier", std::make_shared<Linear>(c.width, c.labels, true));
    const bool has_head =
        attune::nn::has_tensor(context.weights, "classifier.weight", {c.labels, c.width});
    if (!has_head) attune::nn::initialise_head(*classifier_);
    attune::nn::load_parameters(*net_, context.weights, [&](const std::string& name) {
      if (name.starts_with("classifier.")) return has_head ? name : std::string();
      constexpr std::string_view base = "efficientnet.";  // files of a bare encoder leave it out
      return context.weights.contains(name) ? name : name.substr(base.size());
    });
  }

  json config_;
  std::vector<std::string> labels_;
  double dropout_;
  attune::nn::PictureScale scale_;
  Activation activation_;
  std::shared_ptr<torch::nn::Module> net_;
  Part stem_;
  std::vector<Block> blocks_;
  std::optional<Part> top_;
  std::shared_ptr<Linear> classifier_;
};

}  // namespace

ATTUNE_PLUGIN("efficientnet", "1.0.0", registry) {
  registry.model<EfficientNet>("efficientnet",
                               "EfficientNet and EfficientNet-Lite image classifiers");
}
