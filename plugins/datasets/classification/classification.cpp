// Texts with one label each.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <algorithm>

namespace {
using namespace attune;

class Classification final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    std::string too_long = "cut";
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length, "longest sample in tokens, special ones included; 0: any").at_least(0);
      s.key("too_long", &Options::too_long, "what prepare does with longer samples").choices({"cut", "drop"});
    }
  };

  explicit Classification(Options options) : options_(std::move(options)) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    auto tokens = context.tokenizer.encode(record.field("text"));
    const auto frame = context.tokenizer.encode("");
    if (tokens.size() <= frame.size()) throw Rejected("empty text");
    if (options_.max_length > 0 && std::ssize(tokens) > options_.max_length) {
      if (options_.too_long == "drop") throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
      const auto last = tokens.back();
      tokens.resize(static_cast<std::size_t>(options_.max_length));
      // [SEP] stays at the end, as the model knows it.
      if (!frame.empty() && frame.back() == last) tokens.back() = last;
    }
    return {{"tokens", torch::tensor(tokens, torch::kInt32)}, {"label", torch::tensor(label_id(record, context.labels), torch::kInt64)}};
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> tokens, labels;
    for (const auto& sample : samples) {
      tokens.push_back(shortened(sample.at("tokens")));
      labels.push_back(sample.at("label"));
    }
    Batch batch = pack(tokens);
    batch.targets = torch::stack(labels);
    return batch;
  }

 private:
  static std::int64_t label_id(const Record& record, const std::vector<std::string>& labels) {
    const auto found = std::find(labels.begin(), labels.end(), record.field("label"));
    ATTUNE_ASSERT(found != labels.end(), "label {}", record.field("label"));
    return found - labels.begin();
  }

  /// The data may have been prepared for longer samples than this run takes: the beginning and the last token stay.
  torch::Tensor shortened(const torch::Tensor& tokens) const {
    const auto limit = options_.max_length;
    if (limit == 0 || tokens.size(0) <= limit) return tokens;
    return torch::cat({tokens.narrow(0, 0, limit - 1), tokens.narrow(0, tokens.size(0) - 1, 1)});
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("classification", "1.0.0", registry) {
  registry.dataset<Classification>("classification", "texts with one label each");
}
