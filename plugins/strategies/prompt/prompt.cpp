// Prompt tuning (Lester et al. 2021, arXiv:2104.08691): trained embeddings before every sample.
#include <attune/adapter.hpp>
#include <attune/plugin.hpp>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

namespace {

/// weight [length, width]
class Prompt final : public torch::nn::Module, public attune::VirtualTokens {
 public:
  explicit Prompt(const at::Tensor& first) { weight = register_parameter("weight", first); }
  std::int64_t length() const override { return weight.size(0); }
  at::Tensor embeddings() override { return weight; }
  at::Tensor weight;
};

class PromptTuning final : public attune::Strategy {
 public:
  struct Options {
    std::int64_t tokens = 20;
    std::string text;
    static void describe(attune::Schema<Options>& s) {
      s.key("tokens", &Options::tokens, "length of the prompt in tokens").range(1, 4096);
      s.key("text", &Options::text,
            "initial text of the prompt, cut or repeated to its length; empty: random tokens of "
            "the vocabulary");
    }
  };
  explicit PromptTuning(Options options) : options_(std::move(options)) {}

  void prepare(attune::ModelView& view) override {
    auto& model = view.model();
    const auto& spec = model.spec();
    if (spec.task != attune::Task::next_token)
      attune::fail(
          "strategy 'prompt' is for decoders, but this {} model is a classifier: choose 'prefix' "
          "or 'lora'",
          spec.family);
    if (spec.embeds_positions)
      attune::fail(
          "strategy 'prompt' does not support {} models, which add learned position embeddings: "
          "choose 'prefix'",
          spec.family);
    if (options_.tokens >= spec.context)
      attune::fail("strategy.tokens is {}, which uses up the model's context of {}: lower it",
                   options_.tokens, spec.context);
    prompt_ = std::make_shared<Prompt>(
        embeddings(model, at::randint(spec.vocabulary, {options_.tokens}, at::kLong)));
    view.add_virtual_tokens(prompt_);
  }

  void begin(attune::Model& model, attune::RunContext& run) override {
    if (options_.text.empty()) return;
    const auto words = run.models.tokenizer().encode(options_.text, false);
    if (words.empty()) attune::fail("strategy.text has no token: give some words, or remove it");
    std::vector<std::int64_t> ids;
    while (static_cast<std::int64_t>(ids.size()) < options_.tokens)
      ids.push_back(words[ids.size() % words.size()]);
    const torch::NoGradGuard no_grad;
    prompt_->weight.copy_(embeddings(model, torch::tensor(ids, at::kLong)));
  }

  std::optional<attune::Adapter> export_adapter(attune::Model& model) override {
    return attune::nn::peft_adapter(model,
                                    {{"peft_type", "PROMPT_TUNING"},
                                     {"num_virtual_tokens", options_.tokens},
                                     {"token_dim", model.spec().width},
                                     {"num_transformer_submodules", 1},
                                     {"num_attention_heads", model.spec().key_heads},
                                     {"num_layers", model.spec().depth},
                                     {"prompt_tuning_init", "RANDOM"}},
                                    {{"prompt_embeddings", prompt_->weight}});
  }

  void merge(attune::Model&) override {
    attune::fail(
        "a prompt does not change the weights and cannot be merged into them: export without "
        "--merge");
  }

 private:
  static at::Tensor embeddings(attune::Model& model, const at::Tensor& ids) {
    const torch::NoGradGuard no_grad;
    auto batch = attune::pack({ids});
    const auto device = model.projection().options().device();
    batch.tokens = batch.tokens.to(device);
    batch.positions = batch.positions.to(device);
    attune::ForwardContext context(batch);
    return model.embed(context).to(at::kFloat).clone();
  }

  Options options_;
  std::shared_ptr<Prompt> prompt_;
};

}  // namespace

ATTUNE_PLUGIN("prompt", "1.0.0", registry) {
  registry.strategy<PromptTuning>(
      "prompt", "prompt tuning: learned embeddings before each sample, saved for PEFT");
}
