// L2-SP (Li et al. 2018, arXiv:1802.01483, equation 2): weight decay towards the pre-trained
// weights instead of towards zero.
#include <attune/nn.hpp>
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {

class L2Sp final : public attune::Strategy {
 public:
  struct Options {
    double alpha = 0.01;
    static void describe(attune::Schema<Options>& s) {
      s.key("alpha", &Options::alpha,
            "penalty weight: the loss grows by alpha / 2 times the squared distance from the "
            "initial parameters")
          .above(0);
    }
  };
  explicit L2Sp(Options options) : options_(options) {}

  void prepare(attune::ModelView&) override {}

  /// A classifier's head is new: there is nothing to stay near to.
  void begin(attune::Model& model, attune::RunContext& run) override {
    std::vector<const void*> head;
    for (const auto& name : model.head_modules())
      for (const auto& parameter : attune::nn::module_at(model.module(), name).parameters())
        head.push_back(parameter.unsafeGetTensorImpl());
    for (const auto& [name, parameter] : run.trained)
      if (std::find(head.begin(), head.end(), parameter.unsafeGetTensorImpl()) == head.end())
        start_.emplace_back(parameter, parameter.detach().clone());
  }

  /// Times the count, since the framework divides by it: any split of the batch gives the same.
  attune::Loss loss(attune::Model& model, const attune::ForwardContext& context,
                    const attune::LossFunction& inner) override {
    auto loss = inner(model, context);
    if (!context.is_training()) return loss;
    at::Tensor distance = at::zeros({}, loss.sum.options());
    for (const auto& [parameter, start] : start_)
      distance = distance + (parameter - start).square().sum();
    loss.report("l2sp/penalty", 0.5 * options_.alpha * distance);
    loss.sum = loss.sum + 0.5 * options_.alpha * static_cast<double>(loss.count) * distance;
    return loss;
  }

 private:
  Options options_;
  std::vector<std::pair<at::Tensor, at::Tensor>> start_;  // each parameter, and what it was
};

}  // namespace

ATTUNE_PLUGIN("l2sp", "1.0.0", registry) {
  registry.strategy<L2Sp>("l2sp",
                          "penalty on the distance from the initial parameters, against forgetting "
                          "(L2-SP); combine it with a strategy that trains parameters");
}
