// Running text: documents cut to windows, or whole. Every token is a target.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace {
using namespace attune;

class Corpus final : public Dataset {
 public:
  struct Options {
    std::int64_t window = 0;
    std::int64_t overlap = 0;
    static void describe(Schema<Options>& s) {
      s.key("window", &Options::window,
            "length in tokens of the samples that `attune prepare` cuts documents into; 0: one "
            "sample per document")
          .at_least(0);
      s.key("overlap", &Options::overlap,
            "tokens of the previous window that a window repeats as context, without targets")
          .at_least(0);
    }
  };

  explicit Corpus(Options options) : options_(options) {
    if (options_.window == 1)
      fail("window: a single token has no target; use at least 2, or 0 for whole documents");
    if (options_.overlap > 0 && options_.overlap >= options_.window)
      fail("overlap ({}) must be smaller than window ({})", options_.overlap, options_.window);
  }

  /// The document whole.
  Sample encode(const Record& record, const EncodeContext& context) const override {
    const auto tokens = context.tokenizer.encode(record.field("text"));
    if (tokens.size() <= context.tokenizer.encode("").size()) throw Rejected("empty text");
    if (tokens.size() < 2) throw Rejected("a single token has no target");
    auto mask = torch::ones({std::ssize(tokens)}, torch::kUInt8);
    mask[0] = 0;  // follows nothing
    return {{"tokens", torch::tensor(tokens, torch::kInt32)}, {"loss_mask", mask}};
  }

  std::vector<Sample> encode_all(const Record& record,
                                 const EncodeContext& context) const override {
    const Sample document = encode(record, context);
    const auto length = document.at("tokens").size(0);
    const auto window = options_.window;
    const auto overlap = options_.overlap;
    if (window == 0 || length <= window) return {document};
    std::vector<Sample> samples;
    for (std::int64_t first = 0; first + std::max<std::int64_t>(overlap, 1) < length;
         first += window - overlap) {
      const auto count = std::min(window, length - first);
      Sample sample{{"tokens", document.at("tokens").narrow(0, first, count)},
                    {"loss_mask", document.at("loss_mask").narrow(0, first, count).clone()}};
      if (first > 0)
        sample.at("loss_mask").narrow(0, 0, std::max<std::int64_t>(overlap, 1)).zero_();
      samples.push_back(std::move(sample));
    }
    return samples;
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> tokens;
    std::vector<torch::Tensor> targets;
    for (const auto& sample : samples) {
      tokens.push_back(sample.at("tokens"));
      targets.push_back(next_token_targets(sample.at("tokens"), sample.at("loss_mask")));
    }
    Batch batch = pack(tokens);
    batch.targets = torch::cat(targets);
    return batch;
  }

 private:
  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("corpus", "1.0.0", registry) {
  registry.dataset<Corpus>(
      "corpus",
      "plain text for next-token prediction, cut into windows or one sample per document");
}
