// Texts as words, each with a tag: names in a text, parts of speech.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <set>

namespace {
using namespace attune;

enum class TooLong { cut, drop };

class TokenClassification final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    TooLong too_long = TooLong::cut;
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length,
            "maximum sample length in tokens, including special tokens; 0: no limit")
          .at_least(0);
      s.key("too_long", &Options::too_long,
            "treatment of samples longer than `max_length` by `attune prepare`: cut or drop them",
            {{"cut", TooLong::cut}, {"drop", TooLong::drop}});
    }
  };

  explicit TokenClassification(Options options) : options_(std::move(options)) {}

  std::vector<std::string> labels(const Record& record) const override {
    const auto tags = record.list("tags");
    const std::set<std::string> names(tags.begin(), tags.end());
    return {names.begin(), names.end()};
  }

  Sample encode(const Record& record, const EncodeContext& context) const override {
    const auto words = record.list("words");
    const auto tags = record.list("tags");
    if (words.empty()) throw Rejected("no words");
    if (words.size() != tags.size())
      throw BadRow("different numbers of words and tags",
                   fmt::format("{}, row {}: has {} words and {} tags; each word needs one tag",
                               record.source, record.row, words.size(), tags.size()));
    const auto [tokens, targets] = tagged(words, tags, context);
    if (options_.max_length > 0 && std::ssize(tokens) > options_.max_length &&
        options_.too_long == TooLong::drop)
      throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
    return shortened({{"tokens", torch::tensor(tokens, torch::kInt32)},
                      {"tags", torch::tensor(targets, torch::kInt64)}});
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> tokens;
    std::vector<torch::Tensor> tags;
    for (const auto& sample : samples) {
      const auto part = shortened(sample);
      tokens.push_back(part.at("tokens"));
      tags.push_back(part.at("tags"));
    }
    Batch batch = pack(tokens);
    batch.targets = torch::cat(tags);
    return batch;
  }

 private:
  struct Tagged {
    std::vector<std::int32_t> tokens;
    std::vector<std::int64_t> targets;  // the tag at the first token of each word
  };

  static Tagged tagged(const std::vector<std::string>& words, const std::vector<std::string>& tags,
                       const EncodeContext& context) {
    std::string text;
    std::vector<std::size_t> ends;  // of the words, in bytes of the text
    for (const auto& word : words) {
      text += (text.empty() ? "" : " ") + word;
      ends.push_back(text.size());
    }
    auto [ids, spans] = context.tokenizer.encode_with_spans(text);
    Tagged result{std::move(ids), {}};
    std::ptrdiff_t last = -1;
    for (const auto& span : spans) {
      // A token may begin with the space before its word.
      const auto word =
          span.end == 0 ? last : std::ranges::upper_bound(ends, span.end - 1) - ends.begin();
      result.targets.push_back(word > last && word < std::ssize(words)
                                   ? tag_id(tags[static_cast<std::size_t>(word)], context.labels)
                                   : ignored_target);
      last = std::max(last, word);
    }
    if (last < 0) throw Rejected("no word that the tokenizer knows");
    return result;
  }

  static std::int64_t tag_id(const std::string& name, const std::vector<std::string>& labels) {
    const auto found = std::ranges::find(labels, name);
    ATTUNE_ASSERT(found != labels.end(), "tag {}", name);
    return found - labels.begin();
  }

  /// The beginning and the last token ([SEP]) stay.
  Sample shortened(const Sample& sample) const {
    const auto limit = options_.max_length;
    const auto length = sample.at("tokens").size(0);
    if (limit == 0 || length <= limit) return sample;
    Sample shorter;
    for (const auto& [name, column] : sample)
      shorter[name] = torch::cat({column.narrow(0, 0, limit - 1), column.narrow(0, length - 1, 1)});
    return shorter;
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("token_classification", "1.0.0", registry) {
  registry.dataset<TokenClassification>("token_classification", "sentences with one tag per word");
}
