// Prefix tuning (Li and Liang 2021, arXiv:2101.00190): trained keys and values that every sample attends to, in every block.
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

namespace {

/// weight [length, blocks * 2 * key heads * head width]: for every block its keys, then its values, as PEFT lays them out.
class Prefix final : public torch::nn::Module, public attune::VirtualTokens {
 public:
  Prefix(std::int64_t length, const attune::ModelSpec& spec, const at::TensorOptions& options, double deviation) : spec_(spec) {
    weight = register_parameter("weight", at::empty({length, spec.depth * 2 * spec.key_heads * spec.head_width}, options).normal_(0, deviation));
  }

  std::int64_t length() const override { return weight.size(0); }

  std::pair<at::Tensor, at::Tensor> keys_values(std::int64_t block) override {
    const at::Tensor parts = weight.view({length(), 2 * spec_.depth, spec_.key_heads, spec_.head_width});
    return {parts.select(1, 2 * block), parts.select(1, 2 * block + 1)};
  }

  at::Tensor weight;

 private:
  attune::ModelSpec spec_;
};

class PrefixTuning final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t tokens = 20;
    double deviation = 0.02;
    static void describe(attune::Schema<Options>& s) {
      s.key("tokens", &Options::tokens, "length of the prefix").range(1, 4096);
      s.key("deviation", &Options::deviation, "standard deviation of the first keys and values").above(0);
    }
  };
  explicit PrefixTuning(Options options) : options_(options) {}

  void prepare(attune::Model& model) override {
    const auto& spec = model.spec();
    if (spec.key_heads == 0) attune::fail("strategy 'prefix' adds keys and values to attention, which a {} model does not take: choose another strategy", spec.family);
    if (options_.tokens >= spec.context) attune::fail("strategy.tokens is {}, which leaves nothing of the model's context of {}: lower it", options_.tokens, spec.context);
    prefix_ = std::make_shared<Prefix>(options_.tokens, spec, model.projection().options().dtype(at::kFloat), options_.deviation);
    model.set_virtual_tokens(prefix_);
    model.module().register_module(attune::nn::virtual_tokens_name, prefix_);
    attune::nn::train_head(model);
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    const auto& spec = model.spec();
    return attune::nn::peft_adapter(model,
                                    {{"peft_type", "PREFIX_TUNING"},
                                     {"num_virtual_tokens", options_.tokens},
                                     {"token_dim", spec.key_heads * spec.head_width},
                                     {"num_transformer_submodules", 1},
                                     {"num_attention_heads", spec.key_heads},
                                     {"num_layers", spec.depth},
                                     {"encoder_hidden_size", spec.key_heads * spec.head_width},
                                     {"prefix_projection", false}},
                                    {{"prompt_embeddings", prefix_->weight}});
  }

  void merge(attune::Model&) override { attune::fail("a prefix is no change of the weights and cannot be folded into them: export without --merge"); }

 private:
  Options options_;
  std::shared_ptr<Prefix> prefix_;
};

}  // namespace

ATTUNE_PLUGIN("prefix", "1.0.0", registry) { registry.strategy<PrefixTuning>("prefix", "trained keys and values before every sample, in every block, saved for PEFT"); }
