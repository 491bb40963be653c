// Holds the frozen linear layers in 4 or 8 bits. Over 'lora' this is QLoRA (Dettmers et al. 2023,
// arXiv:2305.14314).
#include <attune/adapter.hpp>
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <functional>

namespace {

enum class Type { nf4, int8 };

using Use = std::function<void(at::Tensor&)>;

/// One scale for every `width` values. Scales are held in 8 bits themselves, about their mean, one
/// float32 for every 256 of them ("double quantization", section 3), or as float32.
class Scales {
 public:
  Scales(const at::Tensor& scales, bool doubled) : count_(scales.size(0)) {
    if (!doubled) {
      plain_ = scales;
      return;
    }
    mean_ = scales.mean();
    const at::Tensor groups = grouped(scales - mean_);
    second_ = groups.abs().amax(1, true).clamp_min(1e-30) / 127;
    codes_ = flat((groups / second_).round().to(at::kChar)).clone();
  }

  at::Tensor values() const {
    return plain_.defined() ? plain_ : flat(grouped(codes_).to(at::kFloat) * second_) + mean_;
  }
  std::size_t bytes() const {
    return plain_.defined() ? plain_.nbytes() : codes_.nbytes() + second_.nbytes() + mean_.nbytes();
  }
  void for_each_tensor(const Use& use) {
    for (auto* tensor : {&plain_, &codes_, &second_})
      if (tensor->defined()) use(*tensor);
  }

 private:
  static constexpr std::int64_t group = 256;
  at::Tensor grouped(const at::Tensor& values) const {
    return at::constant_pad_nd(values, {0, (group - count_ % group) % group}).view({-1, group});
  }
  at::Tensor flat(const at::Tensor& groups) const { return groups.flatten().narrow(0, 0, count_); }

  std::int64_t count_;
  at::Tensor plain_;
  at::Tensor codes_;
  at::Tensor second_;
  at::Tensor mean_;
};

/// Values in blocks of `width`, the last one filled up with zeros: [blocks, width].
at::Tensor in_blocks(const at::Tensor& weight, std::int64_t width) {
  const at::Tensor flat = weight.detach().to(at::kFloat).flatten();
  return at::constant_pad_nd(flat, {0, (width - flat.size(0) % width) % width}).view({-1, width});
}

at::Tensor out_of_blocks(const at::Tensor& blocks, const std::vector<std::int64_t>& shape,
                         at::ScalarType dtype) {
  return blocks.flatten().narrow(0, 0, shape[0] * shape[1]).view(shape).to(dtype);
}

at::Tensor largest(const at::Tensor& blocks) { return blocks.abs().amax(1).clamp_min(1e-30); }

/// 4-bit NormalFloat: 16 quantiles of N(0, 1), scaled to [-1, 1], with a zero (appendix E of the
/// paper). Two codes a byte.
class NormalFloat4 final : public attune::nn::PackedWeight {
 public:
  NormalFloat4(const at::Tensor& weight, std::int64_t width, bool doubled)
      : shape_(weight.sizes().vec()),
        width_(width),
        dtype_(weight.scalar_type()),
        scales_(largest(in_blocks(weight, width)), doubled) {
    const at::Tensor levels =
        torch::tensor(std::vector<float>(std::begin(quantiles), std::end(quantiles)))
            .to(weight.device());
    const at::Tensor bounds = (levels.slice(0, 1) + levels.slice(0, 0, -1)) / 2;
    const at::Tensor codes =
        at::bucketize(in_blocks(weight, width) / scales_.values().unsqueeze(1), bounds)
            .to(at::kByte)
            .view({-1, 2});
    packed_ = codes.select(1, 0) * 16 + codes.select(1, 1);
    const at::Tensor bytes = at::arange(256, levels.options().dtype(at::kLong));
    pairs_ = at::stack({levels.index_select(0, bytes.div(16, "floor")),
                        levels.index_select(0, bytes.remainder(16))},
                       1);
  }

  at::Tensor unpack() const override {
    const at::Tensor values = at::embedding(pairs_, packed_.to(at::kInt)).view({-1, width_});
    return out_of_blocks(values * scales_.values().unsqueeze(1), shape_, dtype_);
  }
  std::size_t bytes() const override { return packed_.nbytes() + scales_.bytes(); }
  void for_each_tensor(const Use& use) override {
    use(packed_);
    scales_.for_each_tensor(use);
  }

 private:
  static constexpr float quantiles[] = {-1.0F,
                                        -0.6961928009986877F,
                                        -0.5250730514526367F,
                                        -0.39491748809814453F,
                                        -0.28444138169288635F,
                                        -0.18477343022823334F,
                                        -0.09105003625154495F,
                                        0.0F,
                                        0.07958029955625534F,
                                        0.16093020141124725F,
                                        0.24611230194568634F,
                                        0.33791524171829224F,
                                        0.44070982933044434F,
                                        0.5626170039176941F,
                                        0.7229568362236023F,
                                        1.0F};
  std::vector<std::int64_t> shape_;
  std::int64_t width_;
  at::ScalarType dtype_;
  Scales scales_;
  // bytes; what each of the 256 stands for [256, 2]
  at::Tensor packed_;
  at::Tensor pairs_;
};

/// 8-bit integers, evenly spaced.
class Int8 final : public attune::nn::PackedWeight {
 public:
  Int8(const at::Tensor& weight, std::int64_t width, bool doubled)
      : shape_(weight.sizes().vec()),
        dtype_(weight.scalar_type()),
        scales_(largest(in_blocks(weight, width)) / 127, doubled),
        codes_((in_blocks(weight, width) / scales_.values().unsqueeze(1))
                   .round()
                   .clamp(-127, 127)
                   .to(at::kChar)) {}

  at::Tensor unpack() const override {
    return out_of_blocks(codes_.to(at::kFloat) * scales_.values().unsqueeze(1), shape_, dtype_);
  }
  std::size_t bytes() const override { return codes_.nbytes() + scales_.bytes(); }
  void for_each_tensor(const Use& use) override {
    use(codes_);
    scales_.for_each_tensor(use);
  }

 private:
  std::vector<std::int64_t> shape_;
  at::ScalarType dtype_;
  Scales scales_;
  at::Tensor codes_;
};

class Quantize final : public attune::Strategy {
 public:
  struct Options {
    Type type = Type::nf4;
    std::int64_t block = 64;
    bool double_quantization = true;
    std::vector<std::string> layers = {"all-linear"};
    static void describe(attune::Schema<Options>& s) {
      s.key("type", &Options::type, "quantized data type: 4-bit NormalFloat or 8-bit integer",
            {{"nf4", Type::nf4}, {"int8", Type::int8}});
      s.key("block", &Options::block, "number of values that share a scale; must be even")
          .range(2, 65536);
      s.key("double_quantization", &Options::double_quantization,
            "also quantize the scales to 8 bits");
      s.key("layers", &Options::layers,
            "linear layers to quantize: \"all-linear\" (all but the head), or names");
    }
  };
  explicit Quantize(Options options) : options_(std::move(options)) {
    if (options_.block % 2 != 0)
      attune::fail("strategy.block is {}: it must be even, because two values share a byte",
                   options_.block);
  }

  void prepare(attune::ModelView& view) override {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, linear] :
         attune::nn::choose_targets(view.model(), options_.layers, "strategy.layers")) {
      if (options_.type == Type::nf4)
        linear->pack(std::make_shared<NormalFloat4>(linear->weight, options_.block,
                                                    options_.double_quantization));
      else
        linear->pack(
            std::make_shared<Int8>(linear->weight, options_.block, options_.double_quantization));
    }
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("quantize", "1.0.0", registry) {
  registry.strategy<Quantize>(
      "quantize",
      "4-bit or 8-bit quantization of the frozen base model (QLoRA); combine it with an adapter");
}
