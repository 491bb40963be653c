#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace attune::nn {
namespace {

/// One number for each channel; of the fallback the first for all of them, where it is for another
/// number of channels.
std::vector<double> per_channel(const nlohmann::json& config, const char* key,
                                const std::vector<double>& fallback, std::int64_t channels) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null())
    return std::ssize(fallback) == channels
               ? fallback
               : std::vector<double>(static_cast<std::size_t>(channels), fallback.at(0));
  const bool fits = found->is_array() && std::ssize(*found) == channels &&
                    std::ranges::all_of(*found, [](const auto& one) { return one.is_number(); });
  if (!fits)
    fail(
        "config.json has {} = {} where {} numbers are needed: take the files that came with the "
        "weights",
        key, found->dump(), channels);
  return found->get<std::vector<double>>();
}

/// A number, or height and width alike.
std::int64_t square_size(const nlohmann::json& config) {
  const auto found = config.find("image_size");
  if (found == config.end() || !found->is_array()) return config_size(config, "image_size");
  if (found->size() != 2 || (*found)[0] != (*found)[1])
    fail("config.json has image_size {}, which is not supported: images must be square",
         found->dump());
  return config_size(nlohmann::json{{"image_size", (*found)[0]}}, "image_size");
}

}  // namespace

PictureScale picture_scale(const nlohmann::json& config, const std::vector<double>& mean,
                           const std::vector<double>& deviation) {
  PictureScale scale;
  scale.channels = config_value<std::int64_t>(config, "num_channels", 3);
  if (scale.channels < 1 || scale.channels > 256)
    fail(
        "config.json has num_channels = {}, which no model has: take the config.json that came "
        "with the weights",
        scale.channels);
  scale.size = square_size(config);
  scale.mean = per_channel(config, "image_mean", mean, scale.channels);
  scale.deviation = per_channel(config, "image_std", deviation, scale.channels);
  for (const auto value : scale.deviation)
    if (!(value > 0))
      fail(
          "config.json has image_std with {}, which cannot be a divisor: take the files that came "
          "with the weights",
          value);
  return scale;
}

at::Tensor pictures(const Batch& batch, const PictureScale& scale,
                    const at::TensorOptions& options) {
  const auto found = batch.columns.find("pixels");
  if (found == batch.columns.end())
    fail(
        "the batch has no images, which this model needs: prepare the data with kind = \"images\"");
  const auto channels = found->second.size(1);
  if (channels != 1 && channels != scale.channels)
    fail("the images have {} channels, but the model needs {}: prepare them with as many", channels,
         scale.channels);
  const auto wide = options.dtype(at::kFloat);
  at::Tensor x = found->second.to(wide) / 255;
  if (x.size(2) != scale.size || x.size(3) != scale.size)
    x = at::_upsample_bilinear2d_aa(x, {scale.size, scale.size}, false);
  const auto each = [&](const std::vector<double>& values) {
    const at::Tensor numbers = on_device(torch::tensor(values, at::kFloat), wide.device());
    return numbers.view({1, scale.channels, 1, 1});
  };
  // one channel becomes as many as there are means
  return ((x - each(scale.mean)) / each(scale.deviation)).to(options);
}

}  // namespace attune::nn
