// Distillation (Hinton et al. 2015, arXiv:1503.02531, section 2): the model learns a teacher's
// whole distribution, softened by a temperature.
#include <ATen/OpMathType.h>
#include <attune/linear.hpp>
#include <attune/device.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <array>
#include <cstring>
#include <unordered_map>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// whose logits, ours and the teacher's, exist at the same time
constexpr std::int64_t chunk_rows = 256;

/// The teacher's logits for some rows: of all outputs, or of those named in `outputs` [rows, k].
struct Taught {
  at::Tensor logits;
  at::Tensor outputs;
};
using TaughtRows = std::function<Taught(std::int64_t first, std::int64_t rows)>;

/// sum over rows of KL(teacher || student) at temperature T, and its gradients in the same pass
/// over each chunk's logits. Where the teacher's logits are those of some outputs, its distribution
/// is over these alone; the student's is over all.
struct KlFunction : torch::autograd::Function<KlFunction> {
  /// x [n, width], weight [outputs, width], bias [outputs]
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, double softcap,
                            double temperature, const TaughtRows& taught) {
    const auto wide = x.options().dtype(at::toOpMathType(x.scalar_type()));
    at::Tensor sum = at::zeros({}, wide);
    at::Tensor dx = at::empty_like(x);
    at::Tensor dweight = weight.requires_grad() ? at::zeros(weight.sizes(), wide) : at::Tensor();
    at::Tensor dbias =
        bias && bias->requires_grad() ? at::zeros(bias->sizes(), wide) : at::Tensor();
    for (std::int64_t first = 0; first < x.size(0); first += chunk_rows) {
      const auto rows = std::min(chunk_rows, x.size(0) - first);
      const at::Tensor part = x.narrow(0, first, rows);
      const auto [logits, outputs] = taught(first, rows);
      const at::Tensor theirs = (logits.to(wide.dtype()) / temperature).log_softmax(1);
      const at::Tensor p = theirs.exp();
      at::Tensor z = at::linear(part, weight, bias).to(wide.dtype());
      at::Tensor slope;
      if (softcap > 0) {
        const at::Tensor capped = (z / softcap).tanh();
        z = softcap * capped;
        slope = 1 - capped.square();
      }
      const at::Tensor ours = (z / temperature).log_softmax(1);
      sum += (p * (theirs - (outputs.defined() ? ours.gather(1, outputs) : ours))).sum();
      at::Tensor d = ours.exp();
      outputs.defined() ? d.scatter_add_(1, outputs, -p) : d.sub_(p);
      d.div_(temperature);
      if (slope.defined()) d.mul_(slope);
      if (dbias.defined()) dbias.add_(d.sum(0));
      const at::Tensor narrow = d.to(x.scalar_type());
      dx.narrow(0, first, rows).copy_(at::mm(narrow, weight));
      if (dweight.defined()) dweight.add_(at::mm(narrow.t(), part));
    }
    const auto like_weight = [&](const at::Tensor& d) {
      return d.defined() ? d.to(weight.scalar_type()) : d;
    };
    context->save_for_backward({dx, like_weight(dweight), like_weight(dbias)});
    return sum;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto scaled = [&](const at::Tensor& d) {
      return d.defined() ? d * gradients[0].to(d.scalar_type()) : d;
    };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]), {}, {}, {}};
  }
};

/// What a teacher says of every trained row of a split: its `top` largest logits and which outputs
/// they are of. A table that lies in a file.
struct Stored {
  // float32, int32 [rows, top]
  at::Tensor logits;
  at::Tensor outputs;
  // int64 [n], [n + 1]: row numbers in the split, and where their rows begin
  at::Tensor samples;
  at::Tensor starts;
  std::unordered_map<std::int64_t, std::int64_t> place;  // of a sample, in `samples`

  explicit Stored(const std::vector<attune::NamedTensor>& tensors, const std::string& from) {
    const std::map<std::string, at::Tensor> by_name(tensors.begin(), tensors.end());
    for (const auto& [name, tensor] :
         {std::pair("logits", &logits), std::pair("outputs", &outputs),
          std::pair("samples", &samples), std::pair("starts", &starts)}) {
      if (!by_name.contains(name))
        attune::fail("{}: contains no '{}': it was not made by strategy 'distill'", from, name);
      *tensor = by_name.at(name);
    }
    for (std::int64_t i = 0; i < samples.size(0); ++i)
      place[samples.const_data_ptr<std::int64_t>()[i]] = i;
  }

  std::vector<attune::NamedTensor> tensors() const {
    return {{"logits", logits}, {"outputs", outputs}, {"samples", samples}, {"starts", starts}};
  }

  /// The rows of a batch's samples, in its order.
  Taught of(const attune::Batch& batch, std::int64_t rows) const {
    std::vector<at::Tensor> own_logits;
    std::vector<at::Tensor> own_outputs;
    std::int64_t found = 0;
    for (const auto id : batch.ids) {
      const auto at = place.find(id);
      ATTUNE_ASSERT(at != place.end(), "the teacher's logits of sample {} are not stored", id);
      const auto first = starts.const_data_ptr<std::int64_t>()[at->second];
      const auto count = starts.const_data_ptr<std::int64_t>()[at->second + 1] - first;
      own_logits.push_back(logits.narrow(0, first, count));
      own_outputs.push_back(outputs.narrow(0, first, count));
      found += count;
    }
    if (found != rows)
      attune::fail(
          "the stored logits cover {} trained tokens, but the batch has {}: restore the dataset's "
          "options of the stored logits, or store them again",
          found, rows);
    const auto device = batch.targets.device();
    return {attune::on_device(at::cat(own_logits), device),
            attune::on_device(at::cat(own_outputs).to(at::kLong), device)};
  }
};

class Distill final : public attune::Strategy {
 public:
  struct Options {
    std::string teacher;
    std::string stored;
    std::int64_t top = 64;
    double temperature = 2;
    double share = 0.5;
    static void describe(attune::Schema<Options>& s) {
      s.key("teacher", &Options::teacher,
            "teacher model with the same vocabulary or labels: a folder or a .gguf file; not "
            "needed if its logits are stored")
          .path();
      s.key("stored", &Options::stored,
            "file of the teacher's logits for the training split, computed once if it does not "
            "exist; empty: the teacher runs alongside the model")
          .path();
      s.key("top", &Options::top,
            "number of largest logits stored per trained token; the teacher's distribution is "
            "limited to them")
          .range(1, 65536);
      s.key("temperature", &Options::temperature,
            "temperature that softens the distributions of teacher and model")
          .above(0);
      s.key("share", &Options::share,
            "weight of the distillation loss; the loss of the preceding strategies has the weight "
            "1 - share")
          .range(0, 1);
    }
  };
  explicit Distill(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView&) override {
    if (options_.teacher.empty() && options_.stored.empty())
      attune::fail(
          "strategy 'distill' has no teacher: set strategy.teacher to a model, or strategy.stored "
          "to a file of its logits");
  }

  void begin(attune::Model& model, attune::RunContext& run) override {
    if (!run.trains) return;
    shared_ = model.spec().outputs;
    if (options_.stored.empty()) return open_teacher(model, run);
    std::map<std::string, std::string> made_from{{"top", std::to_string(options_.top)}};
    if (!options_.teacher.empty())
      made_from["teacher (sha256)"] = run.models.sha256(options_.teacher);
    stored_.emplace(
        run.files.read_or_make(
            options_.stored, made_from,
            [&] {
              if (options_.teacher.empty())
                attune::fail(
                    "strategy.stored: {} does not exist yet: set strategy.teacher to compute it",
                    options_.stored);
              open_teacher(model, run);
              auto made = ask_teacher(run);
              teacher_.reset();
              return made.tensors();
            }),
        options_.stored);
    check_stored_outputs(model);
  }

  /// The soft targets' gradients shrink with the square of the temperature: they are scaled back.
  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction& inner) override {
    if (!context.is_training()) return inner(model, context);
    const auto& batch = context.batch();
    const at::Tensor rows = attune::on_device(trained_rows(batch), batch.targets.device());
    const at::Tensor nothing = at::zeros({}, at::TensorOptions(at::kFloat).device(rows.device()));
    attune::Loss loss =
        options_.share < 1 ? inner(model, context) : attune::Loss{nothing, rows.size(0), {}, {}};
    const at::Tensor x = model.features(context).index_select(0, rows);
    auto& projection = model.projection();
    const at::Tensor weight = projection.dense_weight().narrow(0, 0, shared_);
    const auto bias = projection.bias.defined()
                          ? std::optional(projection.bias.narrow(0, 0, shared_))
                          : std::nullopt;
    const auto taught = stored_ ? stored_rows(batch, rows.size(0)) : taught_rows(batch, rows);
    const at::Tensor kl =
        KlFunction::apply(x, weight, bias, projection.softcap, options_.temperature, taught);
    loss.scalars["kl"] = {kl.detach().to(at::kDouble), static_cast<double>(rows.size(0))};
    loss.sum = (1 - options_.share) * loss.sum +
               options_.share * options_.temperature * options_.temperature * kl;
    return loss;
  }

 private:
  static at::Tensor trained_rows(const attune::Batch& batch) {
    if (batch.targets.is_floating_point())
      attune::fail(
          "strategy 'distill' compares distributions over classes or tokens, but the data's "
          "targets are values or several labels per sample: remove the strategy");
    return attune::trained_rows(batch);
  }

  void open_teacher(attune::Model& model, attune::RunContext& run) {
    teacher_ = run.models.open(options_.teacher);
    const auto& theirs = teacher_->spec();
    const auto& ours = model.spec();
    const bool reads_text = ours.task == attune::Task::next_token;
    if (theirs.task != ours.task || (theirs.outputs != ours.outputs && !reads_text))
      attune::fail(
          "strategy.teacher: {} has {} outputs, but the model has {}: use a teacher for the same "
          "task with the same labels",
          options_.teacher, theirs.outputs, ours.outputs);
    if (theirs.outputs != ours.outputs)
      shared_ = shared_outputs(theirs.outputs, ours.outputs, run.models.tokenizer().size());
  }

  /// Embeddings of one tokenizer may be padded to different sizes; the rows beyond its tokens mean
  /// nothing, and are not compared.
  std::int64_t shared_outputs(std::int64_t theirs, std::int64_t ours, std::int64_t tokens) const {
    const auto shared = std::min(theirs, ours);
    if (shared < tokens)
      attune::fail(
          "strategy.teacher: the embedding of {} has {} rows, that of the model {}, and the "
          "tokenizer has {} tokens: the vocabularies differ by more than padding; use a teacher "
          "with the model's tokenizer",
          options_.teacher, theirs, ours, tokens);
    return shared;
  }

  void check_stored_outputs(const attune::Model& model) const {
    if (stored_->outputs.numel() == 0) return;
    const auto largest = stored_->outputs.max().item<std::int64_t>();
    if (largest >= model.spec().outputs)
      attune::fail(
          "strategy.stored: {} contains logits of output {}, but the model has {} outputs: it was "
          "made for a model with more outputs; set another file name",
          options_.stored, largest, model.spec().outputs);
  }

  TaughtRows taught_rows(const attune::Batch& batch, const at::Tensor& rows) {
    const torch::NoGradGuard no_grad;
    const attune::ForwardContext context(batch);
    return [this, context, features = teacher_->features(context).index_select(0, rows)](
               std::int64_t first, std::int64_t count) -> Taught {
      const torch::NoGradGuard no_grad;
      auto own = context;
      return {teacher_->projection()
                  .forward(features.narrow(0, first, count), own)
                  .narrow(1, 0, shared_),
              {}};
    };
  }

  TaughtRows stored_rows(const attune::Batch& batch, std::int64_t rows) const {
    return [taught = stored_->of(batch, rows)](std::int64_t first, std::int64_t count) -> Taught {
      return {taught.logits.narrow(0, first, count), taught.outputs.narrow(0, first, count)};
    };
  }

  /// What is stored of some samples, in their order: logits and outputs [rows * top], the samples'
  /// row numbers, and how many rows each has.
  using Table = std::array<at::Tensor, 4>;
  static Table empty_table() {
    return {at::empty({0}, at::kFloat), at::empty({0}, at::kInt), at::empty({0}, at::kLong),
            at::empty({0}, at::kLong)};
  }

  /// One pass over the training split. The ranks share it: each takes one batch of a round.
  Stored ask_teacher(attune::RunContext& run) {
    const auto comm = run.comm;
    const auto top = std::min(options_.top, shared_);
    std::array<std::vector<at::Tensor>, 4> all;
    Table mine = empty_table();
    const auto end_round = [&] {
      for (std::size_t i = 0; i < all.size(); ++i) all[i].push_back(of_all_ranks(comm, mine[i]));
      mine = empty_table();
    };
    int index = 0;
    run.data.for_each_batch("", 0, [&](const attune::ForwardContext& context) {
      const auto& batch = context.batch();
      if (index % comm.size() == comm.rank()) mine = taught_table(batch, top);
      if (++index % comm.size() == 0) end_round();
    });
    end_round();
    return Stored({{"logits", at::cat(all[0]).view({-1, top})},
                   {"outputs", at::cat(all[1]).view({-1, top})},
                   {"samples", at::cat(all[2])},
                   {"starts", at::cat({at::zeros({1}, at::kLong), at::cat(all[3]).cumsum(0)})}},
                  options_.stored);
  }

  Table taught_table(const attune::Batch& batch, std::int64_t top) {
    const at::Tensor rows = trained_rows(batch);
    const auto taught = taught_rows(batch, attune::on_device(rows, batch.targets.device()));
    std::vector<at::Tensor> logits;
    std::vector<at::Tensor> outputs;
    for (std::int64_t first = 0; first < rows.size(0); first += chunk_rows) {
      const auto [values, of] = taught(first, std::min(chunk_rows, rows.size(0) - first))
                                    .logits.to(at::kFloat)
                                    .topk(top, 1);
      logits.push_back(values.flatten().cpu());
      outputs.push_back(of.flatten().to(at::kCPU, at::kInt));
    }
    Table table = empty_table();
    if (!logits.empty()) {
      table[0] = at::cat(logits);
      table[1] = at::cat(outputs);
    }
    table[2] = torch::tensor(batch.ids, at::kLong);
    table[3] = torch::tensor(rows_of_samples(batch, rows), at::kLong);
    return table;
  }

  /// Every rank's, by rank.
  static at::Tensor of_all_ranks(const attune::Comm& comm, const at::Tensor& mine) {
    if (comm.size() == 1) return mine;
    const auto bytes = mine.contiguous();
    std::vector<at::Tensor> all;
    for (const auto& part : comm.gather(
             std::string(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()))) {
      all.push_back(at::empty({static_cast<std::int64_t>(part.size() / mine.element_size())},
                              mine.options()));
      if (!part.empty()) std::memcpy(all.back().mutable_data_ptr(), part.data(), part.size());
    }
    return at::cat(all);
  }

  /// How many of a batch's trained rows belong to each of its samples: a classifier has one row a
  /// sample, a decoder one a token.
  static std::vector<std::int64_t> rows_of_samples(const attune::Batch& batch,
                                                   const at::Tensor& rows) {
    if (std::ssize(batch.ids) != (batch.tokens.defined() ? batch.samples() : batch.targets.size(0)))
      attune::fail(
          "strategy.stored needs one sample per row of the data, but this data has several: remove "
          "the option");
    const bool by_token = batch.tokens.defined() && batch.targets.size(0) == batch.tokens.size(0);
    std::vector<std::int64_t> counts(batch.ids.size());
    std::size_t sample = 0;
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      const auto row = rows.const_data_ptr<std::int64_t>()[i];
      while (by_token ? row >= batch.starts[sample + 1] : row > static_cast<std::int64_t>(sample))
        ++sample;
      ++counts[sample];
    }
    return counts;
  }

  Options options_;
  std::shared_ptr<attune::Model> teacher_;
  std::optional<Stored> stored_;
  std::int64_t shared_ = 0;  // outputs that the model and its teacher both have
};

}  // namespace

ATTUNE_PLUGIN("distill", "2.0.0", registry) {
  registry.strategy<Distill>("distill",
                             "distillation from a teacher's output distribution; combine it with a "
                             "strategy that trains parameters");
}
