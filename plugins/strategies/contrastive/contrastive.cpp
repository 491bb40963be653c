// Contrastive learning of embeddings (van den Oord et al. 2018, arXiv:1807.03748, equation 4; both
// ways as Radford et al. 2021, arXiv:2103.00020, figure 3): a text is to be nearest to its own
// partner among all partners in the forward pass.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

/// What is not on the diagonal of x [n, n]. Between two places of the diagonal lie n others.
at::Tensor beside_diagonal(const at::Tensor& x) {
  const auto n = x.size(0);
  return x.flatten().narrow(0, 1, n * n - 1).view({n - 1, n + 1}).narrow(1, 0, n);
}

class Contrastive final : public attune::Strategy {
 public:
  struct Options {
    double temperature = 0.05;
    static void describe(attune::Schema<Options>& s) {
      s.key("temperature", &Options::temperature, "temperature that divides the similarities")
          .above(0);
    }
  };
  explicit Contrastive(Options options) : options_(options) {}

  void prepare(attune::ModelView& view) override {
    const auto& model = view.model();
    if (model.spec().task != attune::Task::embedding)
      attune::fail(
          "strategy 'contrastive' compares embeddings, but this {} model has none: use an encoder "
          "with head = \"embedding\" under [model]",
          model.spec().family);
  }

  bool defines_loss() const override { return true; }

  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction&) override {
    const auto& batch = context.batch();
    if (!batch.columns.contains("pair"))
      attune::fail(
          "strategy 'contrastive' compares pairs of texts: set dataset.plugin = \"pairs\", and "
          "prepare the data with it");
    const at::Tensor embeddings = model.features(context).to(at::kFloat);
    const at::Tensor similarity =
        at::mm(embeddings.slice(0, 0, {}, 2), embeddings.slice(0, 1, {}, 2).t()) /
        options_.temperature;
    const at::Tensor own = at::arange(similarity.size(0), batch.columns.at("pair").options());
    const auto cross_entropy = [&](const at::Tensor& logits) {
      return at::cross_entropy_loss(logits, own, {}, at::Reduction::Sum);
    };
    const at::Tensor correct = similarity.argmax(1).eq(own).sum();
    attune::Loss loss{(cross_entropy(similarity) + cross_entropy(similarity.t())) / 2,
                      similarity.size(0), correct};
    const at::Tensor cosines = similarity.detach() * options_.temperature;
    loss.report("similarity/own", cosines.diagonal());
    if (cosines.size(0) > 1) loss.report("similarity/others", beside_diagonal(cosines));
    return loss;
  }

  std::vector<attune::Metric> metrics(std::vector<attune::Metric> inner) const override {
    std::vector<attune::Metric> own{
        attune::metrics::loss("nats", "mean cross-entropy of the pairs, in both directions"),
        attune::metrics::accuracy(
            "fraction of pairs whose first text ranks its second text highest")};
    std::erase_if(inner, [](const auto& metric) {
      return metric.needs != attune::Needs::sums || metric.name == "loss" ||
             metric.name == "accuracy";
    });
    own.insert(own.end(), inner.begin(), inner.end());
    return own;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("contrastive", "1.0.0", registry) {
  registry.strategy<Contrastive>("contrastive",
                                 "contrastive loss on the embeddings of text pairs; combine it "
                                 "with a strategy that trains parameters");
}
