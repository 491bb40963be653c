// Distillation (Hinton et al. 2015, arXiv:1503.02531, section 2): the model learns a teacher's whole distribution, softened by a temperature.
#include <ATen/OpMathType.h>
#include <attune/linear.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t chunk_rows = 256;  // whose logits, ours and the teacher's, exist at the same time

/// sum over rows of KL(teacher || student) at temperature T, and its gradients in the same pass over each chunk's logits.
/// x [n, width] and teacher [n, teacher's width] are features; both projections give the same outputs.
struct KlFunction : torch::autograd::Function<KlFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& teacher, const at::Tensor& teacher_weight, double temperature) {
    const auto wide = x.options().dtype(at::toOpMathType(x.scalar_type()));
    at::Tensor sum = at::zeros({}, wide), dx = at::empty_like(x);
    at::Tensor dweight = weight.requires_grad() ? at::zeros(weight.sizes(), wide) : at::Tensor();
    for (std::int64_t first = 0; first < x.size(0); first += chunk_rows) {
      const auto rows = std::min(chunk_rows, x.size(0) - first);
      const at::Tensor part = x.narrow(0, first, rows);
      const auto log_p = [&](const at::Tensor& features, const at::Tensor& projection) { return (at::linear(features, projection).to(wide.dtype()) / temperature).log_softmax(1); };
      const at::Tensor ours = log_p(part, weight), theirs = log_p(teacher.narrow(0, first, rows), teacher_weight), p = theirs.exp();
      sum += (p * (theirs - ours)).sum();
      const at::Tensor d = (ours.exp() - p).div_(temperature).to(x.scalar_type());
      dx.narrow(0, first, rows).copy_(at::mm(d, weight));
      if (dweight.defined()) dweight.add_(at::mm(d.t(), part));
    }
    context->save_for_backward({dx, dweight.defined() ? dweight.to(weight.scalar_type()) : dweight});
    return sum;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto scaled = [&](const at::Tensor& d) { return d.defined() ? d * gradients[0].to(d.scalar_type()) : d; };
    return {scaled(saved[0]), scaled(saved[1]), {}, {}, {}};
  }
};

class Distill final : public attune::Strategy {
 public:
  struct Options {
    std::string teacher;
    double temperature = 2, share = 0.5;
    static void describe(attune::Schema<Options>& s) {
      s.key("teacher", &Options::teacher, "model to learn from, of the same family and with the same outputs: a folder or a .gguf file").required();
      s.key("temperature", &Options::temperature, "both distributions are softened by it").above(0);
      s.key("share", &Options::share, "of the teacher's loss; the rest is the loss of the strategies before this one").range(0, 1);
    }
  };
  explicit Distill(Options options) : options_(std::move(options)) {}

  void prepare(attune::Model&) override {}

  void begin(attune::Model& model, attune::Surroundings& run) override {
    teacher_ = run.open_model(options_.teacher);
    const auto &theirs = teacher_->spec(), &ours = model.spec();
    if (theirs.task != ours.task || theirs.outputs != ours.outputs)
      attune::fail("strategy.teacher: {} has {} outputs and the model has {}: take a teacher with the same tokenizer, or the same labels", options_.teacher, theirs.outputs, ours.outputs);
  }

  /// The soft targets' gradients shrink with the square of the temperature: they are scaled back.
  attune::Loss loss(attune::Model& model, const attune::Batch& batch, const attune::LossFunction& inner) override {
    if (!model.module().is_training()) return inner(model, batch);
    const at::Tensor rows = at::nonzero(batch.targets != attune::ignored_target).squeeze(1);
    attune::Loss loss = options_.share < 1 ? inner(model, batch) : attune::Loss{at::zeros({}, at::kFloat), rows.size(0), 0, {}};
    const at::Tensor x = model.features(batch).index_select(0, rows);
    const at::Tensor kl = KlFunction::apply(x, model.projection().dense_weight(), taught(batch, rows), teacher_->projection().dense_weight(), options_.temperature);
    loss.sum = (1 - options_.share) * loss.sum + options_.share * options_.temperature * options_.temperature * kl;
    return loss;
  }

 private:
  at::Tensor taught(const attune::Batch& batch, const at::Tensor& rows) {
    const torch::NoGradGuard no_grad;
    return teacher_->features(batch).index_select(0, rows);
  }

  Options options_;
  std::shared_ptr<attune::Model> teacher_;
};

}  // namespace

ATTUNE_PLUGIN("distill", "1.0.0", registry) { registry.strategy<Distill>("distill", "over another strategy: learns from a teacher's distribution"); }
