#include "weights/rope_scaling.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <vector>

namespace attune::weights {
using nlohmann::json;
namespace {

constexpr const char* factors_name = "rope_freqs.weight";
constexpr double rounding = 1e-6;  // of a float32
// original_max_position_embeddings of Llama 3.1 to 3.3
constexpr std::int64_t context_of_llama3 = 8192;

/// One frequency: its turns in a position, and the share of it that is kept (1 / its factor).
struct Point {
  double turns;
  double kept;
};

/// kept = slope * turns + offset, between 1 / factor and 1.
struct Ramp {
  double factor;
  double slope;
  double offset;
  double kept(double turns) const { return std::clamp(slope * turns + offset, 1 / factor, 1.0); }
  double turns_where(double kept) const { return (kept - offset) / slope; }
};

Ramp ramp_through(double factor, const Point& a, const Point& b) {
  const double slope = (a.kept - b.kept) / (a.turns - b.turns);
  return {factor, slope, a.kept - slope * a.turns};
}

/// The ramp that the points lie on, from short waves to long ones. Few of them lie between its ends
/// when heads are narrow: any ramp that gives the same factors is the same model.
Ramp find_ramp(const std::vector<Point>& points, double factor) {
  const auto at_top = [](const Point& point) { return point.kept >= 1 - rounding; };
  const auto at_bottom = [&](const Point& point) { return point.kept <= (1 + rounding) / factor; };
  const auto first = std::ranges::find_if_not(points, at_top);
  const auto last = std::ranges::find_if(points, at_bottom);
  const bool has_top = first != points.begin();
  const Point end = *last;
  if (last - first >= 2) return ramp_through(factor, *first, *(last - 1));
  if (last - first == 0)
    return has_top ? ramp_through(factor, *(first - 1), end) : Ramp{factor, 0, 1 / factor};
  const auto below = ramp_through(factor, *first, end);
  if (!has_top) return below;
  const auto above = ramp_through(factor, *(first - 1), *first);
  return above.slope > below.slope ? above : below;
}

double rounded(double value) {
  return std::abs(value - std::round(value)) < 1e-3 ? std::round(value) : value;
}

std::vector<Point> read_points(const GgufFile& file, std::int64_t head_dim, double base) {
  const auto factors = file.values(factors_name).to(at::kFloat);
  if (factors.numel() != head_dim / 2)
    fail(
        "{}: tensor '{}' has {} factors for heads of width {}; the file is damaged, fetch it again",
        file.path().string(), factors_name, factors.numel(), head_dim);
  std::vector<Point> points;
  for (std::int64_t i = 0; i < factors.numel(); ++i) {
    const double factor = factors.const_data_ptr<float>()[i];
    if (!(factor >= 1) || !std::isfinite(factor))
      fail(
          "{}: tensor '{}' holds the factor {}, where 1 or more is needed; use the model's Hugging "
          "Face "
          "folder",
          file.path().string(), factors_name, factor);
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    points.push_back({std::pow(base, exponent) / (2 * std::numbers::pi), 1 / factor});
  }
  return points;
}

/// Error unless the ramp gives the factors of the file.
void check_ramp(const Ramp& ramp, const std::vector<Point>& points, const GgufFile& file) {
  constexpr double tolerance = 1e-5;
  const auto is_met = [&](const Point& point) {
    return std::abs(ramp.kept(point.turns) - point.kept) <= tolerance * point.kept;
  };
  if (!std::ranges::all_of(points, is_met))
    fail(
        "{}: scales rotary positions by factors ('{}') other than those of Llama 3, which is not "
        "supported; use the model's Hugging Face folder",
        file.path().string(), factors_name);
}

/// Grattafiori et al. 2024 (arXiv:2407.21783), as transformers' "llama3": waves that turn more than
/// high_freq_factor times in the original context stay, those that turn less than low_freq_factor
/// times are stretched by the factor, those between are mixed.
json scaling_of_factors(const ArchitectureKeys& keys, std::int64_t head_dim, double base) {
  const auto points = read_points(keys.file(), head_dim, base);
  const double factor =
      shortest_decimal(static_cast<float>(1 / std::ranges::min(points, {}, &Point::kept).kept));
  if (factor == 1) return nullptr;
  const auto ramp = find_ramp(points, factor);
  if (ramp.slope == 0) {
    check_ramp(ramp, points, keys.file());
    return {{"rope_type", "linear"}, {"factor", factor}};
  }
  const auto original = keys.size("rope.scaling.original_context_length", context_of_llama3);
  const auto context = static_cast<double>(original);
  const double low = rounded(context * ramp.turns_where(1 / factor));
  const double high = rounded(context * ramp.turns_where(1));
  check_ramp(ramp_through(factor, {low / context, 1 / factor}, {high / context, 1}), points,
             keys.file());
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", low},
          {"high_freq_factor", high},
          {"original_max_position_embeddings", original}};
}

/// Peng et al. 2023 (arXiv:2309.00071). llama.cpp multiplies its temperature by the attention
/// factors of the file.
json yarn_scaling(const ArchitectureKeys& keys) {
  keys.require("rope.scaling.yarn_ext_factor", 1);
  keys.require("rope.scaling.yarn_log_multiplier", 0);
  json scaling = {{"rope_type", "yarn"}, {"factor", keys.real("rope.scaling.factor")}};
  scaling["original_max_position_embeddings"] =
      keys.size("rope.scaling.original_context_length", keys.size("context_length"));
  for (const auto* end : {"beta_fast", "beta_slow"})
    if (const auto key = fmt::format("rope.scaling.yarn_{}", end); keys.has(key))
      scaling[end] = keys.real(key);
  const double attention =
      keys.real("rope.scaling.attn_factor", 1) * keys.real("rope.scaling.yarn_attn_factor", 1);
  if (attention != 1)
    scaling["attention_factor"] = attention * (1 + 0.1 * std::log(scaling["factor"].get<double>()));
  return scaling;
}

}  // namespace

double shortest_decimal(float value) {
  const auto text = fmt::format("{}", value);
  double written = value;
  std::from_chars(text.data(), text.data() + text.size(), written);
  return written;
}

void add_rope_scaling(const ArchitectureKeys& keys, std::int64_t head_dim, json& config) {
  const auto& file = keys.file();
  const bool is_older = keys.has("rope.scale_linear");
  const auto type = keys.text("rope.scaling.type", is_older ? "linear" : "none");
  const bool has_factors = file.contains(factors_name);
  const bool is_long = file.contains("rope_factors_long.weight") || type == "longrope";
  if (is_long || (type != "none" && type != "linear" && type != "yarn") ||
      (has_factors && type != "none"))
    fail(
        "{}: has an unsupported scaling of rotary positions ({}; none, linear, yarn and Llama 3's "
        "factors are supported); use the model's Hugging Face folder",
        file.path().string(),
        is_long       ? "longrope"
        : has_factors ? type + " with factors"
                      : type);
  json scaling;
  if (has_factors) scaling = scaling_of_factors(keys, head_dim, config["rope_theta"]);
  if (type == "yarn") scaling = yarn_scaling(keys);
  if (type == "linear") {
    const double factor = keys.real(is_older ? "rope.scale_linear" : "rope.scaling.factor");
    if (factor != 1) scaling = {{"rope_type", "linear"}, {"factor", factor}};
  }
  if (!scaling.is_null()) config["rope_scaling"] = scaling;
}

}  // namespace attune::weights
