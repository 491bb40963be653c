#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/loss.hpp>
#include <attune/model.hpp>
#include <torch/torch.h>

#include <algorithm>

#include "kernels/rows.hpp"
#include "nn/planned.hpp"

namespace attune {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<at::Tensor>;

/// Rows whose logits exist at the same time: enough for a fast matrix product, and 100 MB in
/// float32 at most where there are many outputs.
std::int64_t chunk_rows(std::int64_t outputs) {
  return std::clamp<std::int64_t>(25'000'000 / outputs, 64, 512);
}

template <class Work>  // (first row, number of rows)
void for_each_chunk(std::int64_t rows, std::int64_t outputs, Work&& work) {
  const auto most = chunk_rows(outputs);
  for (std::int64_t first = 0; first < rows; first += most)
    work(first, std::min(most, rows - first));
}

/// In place: logits become softcap tanh(logits / softcap). Returns the slope there; undefined
/// without a softcap.
at::Tensor cap(at::Tensor& logits, double softcap) {
  if (softcap == 0) return {};
  logits.div_(softcap).tanh_();
  const at::Tensor slope = 1 - logits.square();
  logits.mul_(softcap);
  return slope;
}

struct Totals {
  // [rows, 1]
  at::Tensor log_total;
  at::Tensor largest;
};

/// In place: logits [rows, outputs] become their softmax. Returns the logarithm of each row's sum
/// of exponentials, and its largest logit.
Totals become_softmax(at::Tensor& logits) {
  const auto rows = logits.size(0);
  const auto outputs = logits.size(1);
  if (logits.is_meta() && nn::is_near(logits))
    return {at::empty({rows, 1}, logits.options()), at::empty({rows, 1}, logits.options())};
  if (nn::is_on_accelerator(logits) || logits.scalar_type() != at::kFloat ||
      !logits.is_contiguous()) {
    const Totals totals{logits.logsumexp(1, true), logits.amax(1, true)};
    logits.sub_(totals.log_total).exp_();
    return totals;
  }
  const Totals totals{at::empty({rows, 1}, logits.options()),
                      at::empty({rows, 1}, logits.options())};
  at::parallel_for(0, rows, 1, [&](std::int64_t first, std::int64_t end) {
    for (auto row = first; row < end; ++row) {
      const auto sums = kernels::softmax(logits.data_ptr<float>() + row * outputs,
                                         static_cast<std::size_t>(outputs));
      totals.log_total.data_ptr<float>()[row] = sums.log_total;
      totals.largest.data_ptr<float>()[row] = sums.largest;
    }
  });
  return totals;
}

/// A target is correct when no output is larger than its own.
at::Tensor count_correct(const at::Tensor& of_target, const at::Tensor& largest) {
  return at::eq(of_target, largest).sum();
}

/// Where which class is the largest is wanted, of these rows. logits [rows, outputs].
void note_largest(at::Tensor* predicted, std::int64_t first, const at::Tensor& logits) {
  if (predicted) predicted->narrow(0, first, logits.size(0)).copy_(logits.argmax(1));
}

/// What is a row of outputs to `e` [n, outputs], for the rows of the weight that are trained: all,
/// or those of `ids`.
at::Tensor of_rows(const at::Tensor& e, const Maybe& ids) {
  return ids ? e.index_select(1, *ids) : e;
}

/// Loss and, in the same pass over each chunk's logits, the gradients, so that logits live for one
/// chunk alone.
struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  /// x [n, width], weight [outputs, width] as products take it (`operand`), and what of it may be
  /// trained: all, or the rows of `ids` (int64 [k]; absent: all); bias [outputs], targets int64
  /// [n]. predicted: becomes the class of the largest logit, int64 [n]; may be null. Returns the
  /// sum and the correct count.
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& weight, const Maybe& ids,
                               const at::Tensor& operand, const Maybe& bias, double softcap,
                               const at::Tensor& targets, bool with_gradients,
                               at::Tensor* predicted) {
    const auto wide = x.options().dtype(at::toOpMathType(x.scalar_type()));
    const bool with_dx = with_gradients && x.requires_grad();
    const bool with_dweight = with_gradients && weight.requires_grad();
    const bool with_dbias = with_gradients && bias && bias->requires_grad();
    at::Tensor sum = at::zeros({}, wide);
    at::Tensor correct = at::zeros({}, targets.options());
    at::Tensor dx = with_dx ? at::empty_like(x) : at::Tensor();
    at::Tensor dweight = with_dweight ? at::zeros(weight.sizes(), wide) : at::Tensor();
    at::Tensor dbias = with_dbias ? at::zeros(bias->sizes(), wide) : at::Tensor();
    const auto outputs = operand.size(0);
    const at::Tensor buffer = at::empty({std::min(chunk_rows(outputs), x.size(0)), outputs}, wide);

    for_each_chunk(x.size(0), outputs, [&](std::int64_t first, std::int64_t rows) {
      const at::Tensor part = x.narrow(0, first, rows).to(operand.scalar_type());
      const at::Tensor target = targets.narrow(0, first, rows).unsqueeze(1);
      at::Tensor e = buffer.narrow(0, 0, rows);
      nn::add_product(e, part, operand.t(), 1, 0);
      if (bias) e.add_(*bias);
      const at::Tensor slope = cap(e, softcap);
      const at::Tensor of_target = e.gather(1, target);
      note_largest(predicted, first, e);
      const auto [log_total, largest] = become_softmax(e);
      correct += count_correct(of_target, largest);
      sum += (log_total - of_target).sum();
      if (!(with_dx || with_dweight || with_dbias)) return;

      e.scatter_add_(1, target, at::full_like(of_target, -1));  // d logits = softmax - one_hot
      if (slope.defined()) e.mul_(slope);
      const at::Tensor narrow_e = e.to(operand.scalar_type());
      if (with_dx) nn::add_product(dx.narrow(0, first, rows), narrow_e, operand, 1, 0);
      if (with_dweight) nn::add_product(dweight, of_rows(narrow_e, ids).t(), part);
      if (with_dbias) dbias.add_(e.sum(0));
    });
    context->save_for_backward({dx, dweight, dbias});
    context->saved_data["dtype"] = static_cast<std::int64_t>(weight.scalar_type());
    context->mark_non_differentiable({correct});
    return {sum, correct};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    // most of the time, and a pass over the head's gradient saved
    const bool is_one = gradients[0].is_cpu() && gradients[0].item<double>() == 1;
    const auto scaled = [&](const at::Tensor& d) {
      return !d.defined() ? d : (is_one ? d : at::mul(d, gradients[0])).to(dtype);
    };
    return {scaled(saved[0]), scaled(saved[1]), {}, {}, scaled(saved[2]), {}, {}, {}, {}};
  }
};

/// Losses of single rows, whose weights are known only in the backward pass: the logits are
/// computed there once more.
struct RowLossFunction : torch::autograd::Function<RowLossFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& weight, const Maybe& ids,
                               const at::Tensor& operand, const Maybe& bias, double softcap,
                               const at::Tensor& targets) {
    const auto wide = x.options().dtype(at::toOpMathType(x.scalar_type()));
    at::Tensor nll = at::empty({x.size(0)}, wide);
    at::Tensor uniform = at::empty({x.size(0)}, wide);
    at::Tensor log_total = at::empty({x.size(0)}, wide);
    at::Tensor correct = at::zeros({}, targets.options());
    for_each_chunk(x.size(0), operand.size(0), [&](std::int64_t first, std::int64_t rows) {
      at::Tensor z = logits(x.narrow(0, first, rows), operand, bias.value_or(at::Tensor()), wide);
      cap(z, softcap);
      const at::Tensor of_target =
          z.gather(1, targets.narrow(0, first, rows).unsqueeze(1)).squeeze(1);
      const at::Tensor total = z.logsumexp(1);
      log_total.narrow(0, first, rows).copy_(total);
      nll.narrow(0, first, rows).copy_(total - of_target);
      uniform.narrow(0, first, rows).copy_(total - z.mean(1));
      correct += count_correct(of_target, z.amax(1));
    });
    context->save_for_backward({x, weight, operand, bias.value_or(at::Tensor()), targets, log_total,
                                ids.value_or(at::Tensor())});
    context->saved_data["softcap"] = softcap;
    context->mark_non_differentiable({correct});
    return {nll, uniform, correct};
  }

  // With gradients a of nll and b of uniform: d logits = (a + b) softmax - a one_hot - b / outputs.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& x = saved[0];
    const auto& weight = saved[1];
    const auto& operand = saved[2];
    const auto& bias = saved[3];
    const auto& targets = saved[4];
    const auto& log_total = saved[5];
    const auto ids = saved[6].defined() ? std::optional(saved[6]) : std::nullopt;
    const bool with_dx = context->needs_input_grad(0);
    const bool with_dweight = context->needs_input_grad(1);
    const bool with_dbias = bias.defined() && bias.requires_grad();
    const auto wide = log_total.options();
    at::Tensor dx = with_dx ? at::empty_like(x) : at::Tensor();
    at::Tensor dweight = with_dweight ? at::zeros(weight.sizes(), wide) : at::Tensor();
    at::Tensor dbias = with_dbias ? at::zeros(bias.sizes(), wide) : at::Tensor();
    for_each_chunk(x.size(0), operand.size(0), [&](std::int64_t first, std::int64_t rows) {
      const auto part = [&](const at::Tensor& tensor) {
        return tensor.narrow(0, first, rows).unsqueeze(1);
      };
      const at::Tensor a = part(gradients[0]);
      const at::Tensor b = part(gradients[1]);
      const at::Tensor input = x.narrow(0, first, rows);
      at::Tensor d = logits(input, operand, bias, wide);
      const at::Tensor slope = cap(d, context->saved_data["softcap"].toDouble());
      d.sub_(part(log_total)).exp_().mul_(a + b);
      d.scatter_add_(1, part(targets), -a).sub_(b / static_cast<double>(d.size(1)));
      if (slope.defined()) d.mul_(slope);
      const at::Tensor narrow = d.to(operand.scalar_type());
      if (with_dx) nn::add_product(dx.narrow(0, first, rows), narrow, operand, 1, 0);
      if (with_dweight)
        nn::add_product(dweight, of_rows(narrow, ids).t(), input.to(operand.scalar_type()));
      if (with_dbias) dbias.add_(d.sum(0));
    });
    const auto like = [](const at::Tensor& d, const at::Tensor& parameter) {
      return d.defined() ? d.to(parameter.scalar_type()) : d;
    };
    return {dx, like(dweight, weight), {}, {}, like(dbias, bias), {}, {}};
  }

 private:
  static at::Tensor logits(const at::Tensor& x, const at::Tensor& operand, const at::Tensor& bias,
                           const at::TensorOptions& wide) {
    const at::Tensor z = nn::product(x.to(operand.scalar_type()), operand.t()).to(wide);
    return bias.defined() ? z.add_(bias) : z;
  }
};

/// The projection where it is one product: its weight for products, and what of it may be trained.
struct OneProduct {
  at::Tensor weight;
  at::Tensor operand;
  Maybe ids;
  Maybe bias;
};

/// Absent where deltas make it more than that.
std::optional<OneProduct> as_one_product(const nn::Linear& projection,
                                         const ForwardContext& context) {
  const auto bias = projection.bias.defined() ? std::optional(projection.bias) : std::nullopt;
  const auto& deltas = projection.deltas();
  if (deltas.empty()) return OneProduct{projection.dense_weight(), projection.operand(), {}, bias};
  const auto rows = deltas.size() == 1 && projection.is_frozen() && !context.is_shared()
                        ? deltas.front()->rows()
                        : std::nullopt;
  if (!rows) return std::nullopt;
  const at::Tensor base = projection.operand();
  if (!context.acts(deltas.front()->owner))
    return OneProduct{projection.dense_weight(), base, {}, bias};
  return OneProduct{
      rows->values,
      base.index_copy(0, rows->ids, nn::rounded(rows->values.detach(), base.scalar_type())),
      rows->ids, bias};
}

/// Of these rows of the N that the features have.
ForwardContext of_rows(const ForwardContext& context, const at::Tensor& rows, std::int64_t all) {
  return rows.size(0) == all ? context : context.of_rows(rows, all);
}

/// With other deltas: LibTorch's own gradients, chunk by chunk. context: of x's rows, which are
/// `rows` of `all`.
variable_list plain_cross_entropy(const at::Tensor& x, nn::Linear& projection,
                                  const at::Tensor& targets, at::Tensor* predicted,
                                  const ForwardContext& context, const at::Tensor& rows_of_x,
                                  std::int64_t all) {
  const auto wide = at::toOpMathType(x.scalar_type());
  at::Tensor sum = at::zeros({}, x.options().dtype(wide));
  at::Tensor correct = at::zeros({}, targets.options());
  for_each_chunk(x.size(0), projection.out(), [&](std::int64_t first, std::int64_t rows) {
    const at::Tensor target = targets.narrow(0, first, rows);
    auto part = of_rows(context, rows_of_x.narrow(0, first, rows), all);
    const at::Tensor logits = projection.forward(x.narrow(0, first, rows), part).to(wide);
    sum = sum + at::cross_entropy_loss(logits, target, {}, at::Reduction::Sum);
    const torch::NoGradGuard no_grad;
    note_largest(predicted, first, logits);
    correct += count_correct(logits.gather(1, target.unsqueeze(1)), logits.amax(1, true));
  });
  return {sum, correct};
}

void check_targets(const at::Tensor& features, const at::Tensor& targets) {
  if (!targets.defined())
    fail(
        "the data have no targets, which this loss needs: add a strategy with a loss for such "
        "data, such as 'contrastive' for pairs, or prepare data with targets");
  if (features.size(0) == targets.size(0)) return;
  fail(
      "the batch has {} targets for {} outputs of the model: a decoder needs one per token, a "
      "classifier one per sample; use a dataset plugin "
      "that fits the model",
      targets.size(0), features.size(0));
}

/// targets: on the host.
void check_range(const at::Tensor& targets, std::int64_t outputs) {
  if (targets.numel() == 0) return;
  const auto [low, high] = at::aminmax(targets);
  const auto worst =
      low.item<std::int64_t>() < 0 ? low.item<std::int64_t>() : high.item<std::int64_t>();
  if (worst < 0 || worst >= outputs) {
    fail(
        "target {} is outside the model's {} outputs: prepare the data set with this model's "
        "tokenizer and labels",
        worst, outputs);
  }
}

void check_outputs(const at::Tensor& targets, std::int64_t wanted, const nn::Linear& projection) {
  if (wanted == projection.out()) return;
  fail(
      "each of the batch's {} targets needs {} outputs, but the model has {}: open the model with "
      "the labels of this data set",
      targets.size(0), wanted, projection.out());
}

at::Tensor rows_to_train(const at::Tensor& targets_on_host) {
  return at::nonzero(targets_on_host != ignored_target).squeeze(1);
}

/// The part of the targets that is not ignored.
struct TrainedPart {
  at::Tensor on_host;  // int64 [n]: the rows
  at::Tensor rows;     // the same where the targets are
  at::Tensor targets;  // of these rows
};

/// What the host has to know is found on the host.
TrainedPart trained_part(const at::Tensor& targets, std::int64_t outputs,
                         const ForwardContext& context) {
  const at::Tensor known = context.batch().on_host(targets);
  const at::Tensor rows = rows_to_train(known);
  const at::Tensor there = on_device(rows, targets.device());
  const bool all = rows.size(0) == targets.size(0);
  check_range(all ? known : known.index_select(0, rows), outputs);
  return {rows, there, all ? targets : targets.index_select(0, there)};
}

}  // namespace

at::Tensor trained_rows(const Batch& batch) { return rows_to_train(batch.on_host(batch.targets)); }

void Loss::report(const std::string& name, const at::Tensor& values) {
  auto& scalar = scalars[name];
  const at::Tensor sum = values.detach().to(at::kDouble).sum();
  scalar.sum = scalar.sum.defined() ? scalar.sum + sum : sum;
  scalar.count += static_cast<double>(values.numel());
}

Loss cross_entropy(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                   const ForwardContext& context) {
  check_targets(features, targets);
  const auto [on_host, rows, trained] = trained_part(targets, projection.out(), context);
  const bool all = rows.size(0) == targets.size(0);
  const at::Tensor x = all ? features : features.index_select(0, rows);
  const auto one = as_one_product(projection, context);
  const bool wants_outputs = context.wants_outputs;
  at::Tensor predicted = wants_outputs ? at::empty_like(trained) : at::Tensor();
  at::Tensor* const wanted = wants_outputs ? &predicted : nullptr;
  const bool with_gradients = at::GradMode::is_enabled();
  const auto result =
      one ? CrossEntropyFunction::apply(x, one->weight, one->ids, one->operand, one->bias,
                                        projection.softcap, trained, with_gradients, wanted)
          : plain_cross_entropy(x, projection, trained, wanted, context.in_projection(), on_host,
                                targets.size(0));
  if (wants_outputs && !all)
    predicted = at::full_like(targets, ignored_target).index_copy(0, rows, predicted);
  return {result[0], rows.size(0), result[1], predicted};
}

RowLosses row_losses(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                     const ForwardContext& context) {
  check_targets(features, targets);
  if (targets.is_floating_point())
    fail(
        "the loss is defined for single classes or tokens, but the data's targets are {}: remove "
        "its strategy",
        targets.dim() == 2 ? "several labels per sample" : "values");
  RowLosses losses;
  const auto part = trained_part(targets, projection.out(), context);
  losses.rows = part.rows;
  losses.targets = part.targets;
  const at::Tensor x = features.index_select(0, losses.rows);
  if (const auto one = as_one_product(projection, context)) {
    const auto result = RowLossFunction::apply(x, one->weight, one->ids, one->operand, one->bias,
                                               projection.softcap, losses.targets);
    losses.nll = result[0];
    losses.uniform = result[1];
    losses.correct = result[2];
  } else {
    auto own = of_rows(context, part.on_host, targets.size(0)).in_projection();
    const at::Tensor logits = projection.forward(x, own).to(at::toOpMathType(x.scalar_type()));
    const at::Tensor of_target = logits.gather(1, losses.targets.unsqueeze(1)).squeeze(1);
    losses.nll = logits.logsumexp(1) - of_target;
    losses.uniform = logits.logsumexp(1) - logits.mean(1);
    losses.correct = count_correct(of_target, logits.amax(1));
  }
  return losses;
}

std::vector<std::int64_t> targets_by_sample(const Batch& batch) {
  if (!batch.targets.defined()) return {};
  if (batch.targets.is_floating_point())
    return std::vector<std::int64_t>(batch.targets.size(0),
                                     batch.targets.dim() == 2 ? batch.targets.size(1) : 1);
  const at::Tensor targets = batch.on_host(batch.targets).contiguous();
  const auto* values = targets.const_data_ptr<std::int64_t>();
  const bool by_token = batch.tokens.defined() && targets.size(0) == batch.tokens.size(0);
  const auto samples = by_token ? batch.samples() : targets.size(0);
  std::vector<std::int64_t> counts;
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    const auto first = by_token ? batch.starts[sample] : sample;
    const auto end = by_token ? batch.starts[sample + 1] : sample + 1;
    counts.push_back(std::count_if(values + first, values + end,
                                   [](std::int64_t target) { return target != ignored_target; }));
  }
  return counts;
}

std::vector<std::int64_t> rows_without_target(const Batch& batch) {
  const auto counts = targets_by_sample(batch);
  std::vector<std::int64_t> rows;
  if (batch.ids.empty() || counts.size() % batch.ids.size() != 0) return rows;
  const auto each = counts.size() / batch.ids.size();  // samples of one row
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    const auto first = counts.begin() + static_cast<std::ptrdiff_t>(i * each);
    if (std::find(first, first + static_cast<std::ptrdiff_t>(each), 0) !=
        first + static_cast<std::ptrdiff_t>(each))
      rows.push_back(batch.ids[i]);
  }
  return rows;
}

SampleLogProbabilities sample_log_probabilities(Model& model, const ForwardContext& context) {
  const auto& batch = context.batch();
  const auto losses =
      row_losses(model.features(context), model.projection(), batch.targets, context);
  // Sample b holds the rows starts[b] .. starts[b+1]-1.
  const at::Tensor ends = on_device(
      torch::tensor(std::vector<std::int64_t>(batch.starts.begin() + 1, batch.starts.end()),
                    at::kLong),
      losses.rows.device());
  const at::Tensor sample = at::searchsorted(ends, losses.rows, false, true);
  const at::Tensor zeros = at::zeros({batch.samples()}, losses.nll.options());
  return {zeros.index_add(0, sample, -losses.nll),
          zeros.to(at::kLong).index_add(0, sample, at::ones_like(sample))};
}

Loss binary_cross_entropy(const at::Tensor& features, nn::Linear& projection,
                          const at::Tensor& targets, const ForwardContext& context) {
  check_targets(features, targets);
  check_outputs(targets, targets.size(1), projection);
  auto own = context.in_projection();
  const at::Tensor outputs =
      projection.forward(features, own).to(at::toOpMathType(features.scalar_type()));
  const at::Tensor right = at::eq(outputs > 0, targets > 0.5);
  return {at::binary_cross_entropy_with_logits(outputs, targets.to(outputs.scalar_type()), {}, {},
                                               at::Reduction::Sum),
          targets.numel(), right.sum(), outputs.detach().sigmoid()};
}

Loss squared_error(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                   const ForwardContext& context) {
  check_targets(features, targets);
  check_outputs(targets, 1, projection);
  auto own = context.in_projection();
  const at::Tensor outputs =
      projection.forward(features, own).to(at::toOpMathType(features.scalar_type())).squeeze(1);
  return {at::mse_loss(outputs, targets.to(outputs.scalar_type()), at::Reduction::Sum),
          targets.numel(),
          {},
          outputs.detach()};
}

Loss supervised_loss(const at::Tensor& features, nn::Linear& projection, const at::Tensor& targets,
                     const ForwardContext& context) {
  if (!targets.defined() || !targets.is_floating_point())
    return cross_entropy(features, projection, targets, context);
  const auto loss = targets.dim() == 2 ? binary_cross_entropy : squared_error;
  return loss(features, projection, targets, context);
}

Loss supervised_loss(Model& model, const ForwardContext& context) {
  return supervised_loss(model.features(context), model.projection(), context.batch().targets,
                         context);
}

}  // namespace attune
