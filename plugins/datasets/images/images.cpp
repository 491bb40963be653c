// Pictures with one label each.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace {
using namespace attune;

/// Uniform numbers that are the same with every standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  double between(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(between(0, static_cast<double>(bound)));
  }
  bool coin() { return engine_() >> 63; }

 private:
  std::mt19937_64 engine_;
};

/// uint8 [h, w, c] in, the same out.
torch::Tensor cropped(const torch::Tensor& image, std::int64_t padding, Random& random) {
  const auto height = image.size(0);
  const auto width = image.size(1);
  const auto padded = torch::constant_pad_nd(image, {0, 0, padding, padding, padding, padding});
  return padded.narrow(0, random.below(2 * padding + 1), height)
      .narrow(1, random.below(2 * padding + 1), width);
}

/// Brightness, contrast and saturation, each times a factor of [1 - strength, 1 + strength].
torch::Tensor jittered(const torch::Tensor& image, double strength, Random& random) {
  const auto factor = [&] { return random.between(1 - strength, 1 + strength); };
  auto pixels = image.to(torch::kFloat32) * factor();
  const auto mean = pixels.mean();
  pixels = mean + (pixels - mean) * factor();
  const auto grey = pixels.mean(2, true);
  pixels = grey + (pixels - grey) * factor();
  return pixels.round().clamp(0, 255).to(torch::kUInt8);
}

/// The shorter side becomes `size` (bilinear, with antialiasing), the middle of the longer is kept.
torch::Tensor resized(const torch::Tensor& image, std::int64_t size) {
  const auto height = image.size(0);
  const auto width = image.size(1);
  const auto shorter = std::min(height, width);
  const auto scaled = [&](std::int64_t side) {
    return std::max<std::int64_t>(
        size, std::lround(static_cast<double>(side) * static_cast<double>(size) /
                          static_cast<double>(shorter)));
  };
  const auto planes = image.permute({2, 0, 1}).unsqueeze(0).to(torch::kFloat32);
  const auto pixels =
      at::_upsample_bilinear2d_aa(planes, {scaled(height), scaled(width)}, false)[0].permute(
          {1, 2, 0});
  return pixels.narrow(0, (pixels.size(0) - size) / 2, size)
      .narrow(1, (pixels.size(1) - size) / 2, size)
      .round()
      .clamp(0, 255)
      .to(torch::kUInt8)
      .contiguous();
}

/// A batch has columns["pixels"]: uint8 [B, channels, height, width], and no tokens.
class Images final : public Dataset {
 public:
  struct Options {
    std::int64_t size = 0;
    bool flip = false;
    std::int64_t crop = 0;
    double jitter = 0;
    static void describe(Schema<Options>& s) {
      s.key("size", &Options::size,
            "side length in pixels that `attune prepare` scales images to, cropping the longer "
            "side at the center; 0: no scaling, all images must have the same size")
          .range(0, 4096);
      s.key("flip", &Options::flip, "mirror training images left to right with probability 1/2");
      s.key("crop", &Options::crop,
            "random crop of training images: shift by up to this many pixels along each axis, with "
            "black padding")
          .range(0, 1024);
      s.key("jitter", &Options::jitter,
            "color jitter of training images: maximum relative change of brightness, contrast and "
            "saturation; 0: none")
          .range(0, 1);
    }
  };

  explicit Images(Options options) : options_(options) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    if (!record.image.defined())
      throw BadRow(
          "no picture",
          fmt::format("{}, row {}: contains no image; use a source of format \"idx\" or \"images\"",
                      record.source, record.row));
    const auto label =
        std::find(context.labels.begin(), context.labels.end(), record.field("label"));
    ATTUNE_ASSERT(label != context.labels.end(), "label {}", record.field("label"));
    return {{"pixels", options_.size == 0 ? record.image : resized(record.image, options_.size)},
            {"label", torch::tensor(label - context.labels.begin(), torch::kInt64)}};
  }

  bool reads_text() const override { return false; }

  Sample augment(Sample sample, std::uint64_t seed) const override {
    Random random(seed);
    auto& pixels = sample.at("pixels");
    if (options_.flip && random.coin()) pixels = pixels.flip(1);
    if (options_.crop > 0) pixels = cropped(pixels, options_.crop, random);
    if (options_.jitter > 0) pixels = jittered(pixels, options_.jitter, random);
    return sample;
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> pixels;
    std::vector<torch::Tensor> labels;
    Batch batch;
    for (const auto& sample : samples) {
      pixels.push_back(sample.at("pixels").permute({2, 0, 1}));
      labels.push_back(sample.at("label"));
      batch.starts.push_back(batch.starts.back() + 1);
    }
    batch.columns["pixels"] = torch::stack(pixels);
    batch.targets = torch::stack(labels);
    return batch;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("images", "1.0.0", registry) {
  registry.dataset<Images>("images", "images with one label each");
}
