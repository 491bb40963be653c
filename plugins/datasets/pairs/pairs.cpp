// Pairs of texts that mean the same: question and answer, sentence and paraphrase.
#include <attune/plugin.hpp>
#include <torch/torch.h>

namespace {
using namespace attune;

/// A batch of B pairs holds 2 B samples: first and second of pair 0, of pair 1, ...
/// columns["pair"]: int64 [2 B], the position in Batch::ids.
class Pairs final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length,
            "maximum length of each text in tokens, including special tokens; `attune prepare` "
            "drops pairs with a longer text; 0: no limit")
          .at_least(0);
    }
  };
  explicit Pairs(Options options) : options_(options) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    return {{"first", tokens_of(record, "first", context)},
            {"second", tokens_of(record, "second", context)}};
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> texts;
    for (const auto& sample : samples)
      for (const char* side : {"first", "second"}) texts.push_back(sample.at(side));
    Batch batch = pack(texts);
    batch.columns["pair"] = torch::arange(batch.samples()).floor_divide(2);
    // the second of which pair the first belongs to
    batch.targets = torch::arange(std::ssize(samples));
    return batch;
  }

 private:
  torch::Tensor tokens_of(const Record& record, const char* field,
                          const EncodeContext& context) const {
    const auto tokens = context.tokenizer.encode(record.field(field));
    if (tokens.size() <= context.tokenizer.encode("").size())
      throw Rejected(fmt::format("empty {} text", field));
    if (options_.max_length > 0 && std::ssize(tokens) > options_.max_length)
      throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
    return torch::tensor(tokens, torch::kInt32);
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("pairs", "1.0.0", registry) {
  registry.dataset<Pairs>("pairs", "pairs of texts with the same meaning, for embedding models");
}
