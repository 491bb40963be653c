// The changes that 'lora' puts beside linear layers and convolutions.
#pragma once
#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <cmath>
#include <optional>
#include <utility>

namespace lora {

using attune::ForwardContext;
using attune::nn::add_product;
using attune::nn::Conv2d;
using attune::nn::Linear;
using attune::nn::product;

/// A change of rank r, scaled: y + scale dropout(x) A^T B^T, A [r, in], B [out, r], in float32 at
/// least, whatever the base has.
struct Shape {
  std::int64_t rank;
  double alpha;
  double scale;
  double dropout;
  bool has_bias = false;  // y + scale (dropout(x) A^T B^T + bias)
};

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// y + scale (x a^T) b^T, written into y, which is given or else x weight^T + bias, both frozen. x,
/// y: rows; a [r, in], b [out, r]. A function of its own because LibTorch's would copy y and sum
/// two gradients of x, and because the gradients of a and b are twice as fast with the long side in
/// columns. What is multiplied is rounded to `operands`.
struct LowRankChange : torch::autograd::Function<LowRankChange> {
  using Maybe = std::optional<at::Tensor>;

  static at::Tensor forward(AutogradContext* context, const Maybe& given_y,
                            const at::Tensor& given_x, const Maybe& weight, const Maybe& bias,
                            const at::Tensor& given_a, const at::Tensor& given_b, double scale,
                            at::ScalarType operands) {
    const at::Tensor x = given_x.to(operands);
    const at::Tensor a = given_a.to(operands);
    const at::Tensor b = given_b.to(operands);
    const at::Tensor narrowed = product(x, a.t()).to(operands);
    context->save_for_backward({x, a, b, narrowed, weight.value_or(at::Tensor())});
    context->saved_data["scale"] = scale;
    context->saved_data["with_dx"] = given_x.requires_grad();
    context->saved_data["with_da"] = given_a.requires_grad();
    context->saved_data["with_db"] = given_b.requires_grad();
    if (given_y) {
      context->mark_dirty({*given_y});
      add_product(*given_y, narrowed, b.t(), scale);
      return *given_y;
    }
    // The change first: added to a y that is rounded to bfloat16, a small one would be lost in
    // every element, and not be right on average.
    const at::Tensor y = multiplied(narrowed, b.t(), given_x.scalar_type(), scale);
    add_product(y, x, weight->t());
    if (bias) y.add_(*bias);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& x = saved[0];
    const auto& a = saved[1];
    const auto& b = saved[2];
    const auto& narrowed = saved[3];
    const auto& weight = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const at::Tensor dy = gradients[0].to(b.scalar_type());
    const at::Tensor dnarrowed = product(dy, b).mul_(scale).to(b.scalar_type());
    const auto is_wanted = [&](const char* gradient) {
      return context->saved_data[gradient].toBool();
    };
    at::Tensor dx;
    at::Tensor da;
    at::Tensor db;
    if (is_wanted("with_dx") && weight.defined())
      add_product(dx = multiplied(dy, weight, gradients[0].scalar_type()), dnarrowed, a);
    if (is_wanted("with_dx") && !weight.defined()) dx = product(dnarrowed, a);
    if (is_wanted("with_da")) da = product(dnarrowed.t(), x);
    if (is_wanted("with_db")) db = product(narrowed.t(), dy).mul_(scale).t();
    return {weight.defined() ? at::Tensor() : gradients[0], dx, {}, {}, da, db, {}, {}};
  }

 private:
  static at::Tensor multiplied(const at::Tensor& left, const at::Tensor& right, at::ScalarType type,
                               double scale = 1) {
    const at::Tensor result = at::empty({left.size(0), right.size(1)}, left.options().dtype(type));
    add_product(result, left, right, scale, 0);
    return result;
  }
};

class LowRank : public attune::nn::Delta {
 public:
  /// A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0, as in PEFT.
  LowRank(const Linear& base, const Shape& shape) : shape(shape) {
    const auto options =
        base.options()
            .dtype(at::promote_types(c10::typeMetaToScalarType(base.options().dtype()), at::kFloat))
            .requires_grad(false);
    a = register_parameter("A", at::empty({shape.rank, base.in()}, options));
    b = register_parameter("B", at::zeros({base.out(), shape.rank}, options));
    if (shape.has_bias) bias = register_parameter("B_bias", at::zeros({base.out()}, options));
    attune::drawn_on_host(
        a, [](at::Tensor& values) { torch::nn::init::kaiming_uniform_(values, std::sqrt(5.0)); });
  }

  at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y,
                     ForwardContext& context) override {
    const at::Tensor sum =
        changed(base, y.flatten(0, -2), context.dropout(x, shape.dropout), {}, {}).view_as(y);
    return bias.defined() ? sum + shape.scale * bias.to(sum.scalar_type()) : sum;
  }

  at::Tensor forward_fused(const Linear& base, const at::Tensor& x,
                           ForwardContext& context) override {
    if (base.packed() || bias.defined() || drops(context)) return {};
    auto sizes = x.sizes().vec();
    sizes.back() = base.out();
    return changed(base, {}, x, base.operand(),
                   base.bias.defined() ? std::optional(base.bias) : std::nullopt)
        .view(sizes);
  }

  void merge(Linear& base) const override {
    base.weight.add_(change());
    if (!bias.defined()) return;
    if (!base.bias.defined())
      attune::fail(
          "the adapter has biases (strategy.lora_bias) for layers without biases, so it cannot be "
          "merged into them: export it without --merge");
    base.bias.add_(bias, shape.scale);
  }

  /// [out, in]
  at::Tensor change() const { return at::mm(b, a).mul_(shape.scale); }
  at::Tensor changed(const Linear& base, const LowRankChange::Maybe& y, const at::Tensor& x,
                     const LowRankChange::Maybe& weight, const LowRankChange::Maybe& bias) const {
    const auto type = x.scalar_type();
    const auto operands = base.rounds_operands ? at::kBFloat16 : type;
    return LowRankChange::apply(y, x.flatten(0, -2), weight, bias, a.to(type), b.to(type),
                                shape.scale, operands);
  }
  bool drops(const ForwardContext& context) const {
    return shape.dropout > 0 && context.is_training();
  }

  Shape shape;
  // bias: undefined unless the shape has one
  at::Tensor a;
  at::Tensor b;
  at::Tensor bias;
};

inline at::Tensor normal(at::IntArrayRef sizes, const at::TensorOptions& like) {
  return attune::drawn_on_host(at::empty(sizes, like),
                               [](at::Tensor& values) { values.normal_(); });
}

/// B A = 0 although neither is zero: their rows and columns come from halves of one orthogonal
/// matrix (PEFT's "orthogonal").
inline void start_orthogonal(LowRank& delta) {
  const auto rank = delta.shape.rank;
  const auto like = delta.a.options();
  const at::Tensor q = std::get<0>(at::linalg_qr(normal({rank, rank}, like)));
  const at::Tensor odd = q.slice(0, 0, {}, 2);
  const at::Tensor even = q.slice(0, 1, {}, 2);
  const torch::NoGradGuard no_grad;
  delta.a.copy_(normal({delta.a.size(1), rank / 2}, like).mm(odd).t() / 10);
  delta.b.copy_(normal({rank / 2, delta.b.size(0)}, like).t().mm(even) / 10);
}

/// B A at the start, of a change that begins with a part of the weight.
struct Start {
  at::Tensor a;
  at::Tensor b;
};

/// PiSSA (Meng et al. 2024, arXiv:2404.02948): the principal components of the weight [out, in].
inline Start principal_components(const at::Tensor& weight, const Shape& shape) {
  const auto [u, s, vh] = at::linalg_svd(weight, false);
  const at::Tensor root = (s.narrow(0, 0, shape.rank) / shape.scale).sqrt();
  return {root.unsqueeze(1) * vh.narrow(0, 0, shape.rank), u.narrow(1, 0, shape.rank) * root};
}

/// OLoRA (Büyükakyüz 2024, arXiv:2406.01775): the first columns of Q and rows of R in the weight's
/// QR decomposition.
inline Start orthonormal_part(const at::Tensor& weight, const Shape& shape) {
  const auto [q, r] = at::linalg_qr(weight);
  return {r.narrow(0, 0, shape.rank), q.narrow(1, 0, shape.rank)};
}

/// Starts with a part of the weight, which keeps the rest.
class Split final : public LowRank {
 public:
  Split(Linear& base, const Shape& shape,
        Start (*start_of)(const at::Tensor& weight, const Shape& shape))
      : LowRank(base, shape) {
    const torch::NoGradGuard no_grad;
    const auto start = start_of(base.weight.to(a.scalar_type()), shape);
    a.copy_(start.a);
    b.copy_(start.b);
    first_a = register_buffer("first_A", a.detach().clone());
    first_b = register_buffer("first_B", b.detach().clone());
    base.weight.set_data(
        (base.weight.to(a.scalar_type()) - change()).to(base.weight.scalar_type()));
  }

  at::Tensor base_output(const Linear&, const at::Tensor& x, const at::Tensor& y) override {
    const auto as_y = [&](const at::Tensor& tensor) { return tensor.to(y.scalar_type()); };
    return at::addmm(y, as_y(at::linear(x, first_a.to(x.scalar_type()))), as_y(first_b).t(), 1,
                     shape.scale);
  }

  at::Tensor first_a;
  at::Tensor first_b;
};

/// DoRA (Liu et al. 2024, arXiv:2402.09353), equation 5: the weight's rows get the direction of W +
/// scale B A and a trained length.
class Decomposed final : public LowRank {
 public:
  Decomposed(const Linear& base, const Shape& shape) : LowRank(base, shape) {
    const torch::NoGradGuard no_grad;
    magnitude = register_parameter("magnitude", length(base).clone());
  }

  at::Tensor forward_fused(const Linear&, const at::Tensor&, ForwardContext&) override {
    return {};
  }

  at::Tensor forward(const Linear& base, const at::Tensor& x, const at::Tensor& y,
                     ForwardContext& context) override {
    check_input(base, x);
    const at::Tensor input = context.dropout(x, shape.dropout);
    const at::Tensor plain = drops(context)        ? at::linear(input, base.dense_weight())
                             : base.bias.defined() ? y - base.bias
                                                   : y;
    const at::Tensor ratio = (magnitude / length(base).detach()).to(y.scalar_type());
    const at::Tensor low_rank =
        at::linear(at::linear(input, a.to(x.scalar_type())), b.to(x.scalar_type()));
    // of the plain output, what is kept for the gradient is as narrow as x
    return y + (ratio - 1) * plain.to(x.scalar_type()) + ratio * shape.scale * low_rank;
  }

  void merge(Linear& base) const override {
    const at::Tensor ratio = magnitude / length(base);
    base.weight.add_(change()).mul_(ratio.unsqueeze(1));
  }

  /// Of every row of W + scale B A, [out].
  at::Tensor length(const Linear& base) const {
    return (base.dense_weight().detach().to(a.scalar_type()) + change()).norm(2, 1);
  }

  at::Tensor magnitude;

 private:
  /// The lengths are those of the weight alone: with another input no merged weight gives the same
  /// output. Once, for all strategies have prepared the model only then.
  void check_input(const Linear& base, const at::Tensor& x) {
    if (is_checked_) return;
    for (const auto& delta : base.deltas())
      if (!delta->input(x).is_same(x))
        attune::fail(
            "strategy.dora cannot be combined with a strategy that changes the input of the same "
            "layer, as ia3 does in feed-forward layers: remove the layer from one of them "
            "(strategy.targets)");
    is_checked_ = true;
  }
  bool is_checked_ = false;
};

/// The change of a convolution, as PEFT has it: A a convolution to `rank` channels with the layer's
/// own kernel and stride, B one of single points from there. A [r, in, kernel, kernel], B [out, r,
/// 1, 1].
class LowRankConvolution final : public attune::nn::ConvolutionDelta {
 public:
  LowRankConvolution(const Conv2d& base, const Shape& shape) : shape(shape) {
    const auto& weight = base.weight;
    const auto options = weight.options()
                             .dtype(at::promote_types(weight.scalar_type(), at::kFloat))
                             .requires_grad(false);
    a = register_parameter(
        "A", at::empty({shape.rank, weight.size(1), weight.size(2), weight.size(3)}, options));
    b = register_parameter("B", at::zeros({weight.size(0), shape.rank, 1, 1}, options));
    attune::drawn_on_host(
        a, [](at::Tensor& values) { torch::nn::init::kaiming_uniform_(values, std::sqrt(5.0)); });
  }

  at::Tensor forward(const Conv2d& base, const at::Tensor& x, const at::Tensor& y,
                     ForwardContext& context) override {
    const at::Tensor narrowed = at::conv2d(context.dropout(x, shape.dropout), a.to(x.scalar_type()),
                                           {}, base.options().stride, base.options().padding);
    return y + at::conv2d(narrowed, b.to(x.scalar_type())) * shape.scale;
  }

  void merge(Conv2d& base) const override {
    base.weight.add_(at::mm(b.flatten(1), a.flatten(1)).view_as(base.weight), shape.scale);
  }

  Shape shape;
  at::Tensor a;
  at::Tensor b;
};

}  // namespace lora
