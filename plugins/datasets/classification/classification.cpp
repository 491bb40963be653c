// Texts with a label, with any of several labels, or with a value.
#include <attune/plugin.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

namespace {
using namespace attune;

enum class Target { label, labels, value };
enum class TooLong { cut, drop };

class Classification final : public Dataset {
 public:
  struct Options {
    Target target = Target::label;
    std::string separator = ",";
    std::int64_t max_length = 0;
    TooLong too_long = TooLong::cut;
    static void describe(Schema<Options>& s) {
      s.key("target", &Options::target,
            "target field that `attune prepare` reads: label (one class), labels (any number of "
            "classes) or value (a number)",
            {{"label", Target::label}, {"labels", Target::labels}, {"value", Target::value}});
      s.key("separator", &Options::separator,
            "separator of the names in the field `labels`, unless that is a list");
      s.key("max_length", &Options::max_length,
            "maximum sample length in tokens, including special tokens; 0: no limit")
          .at_least(0);
      s.key("too_long", &Options::too_long,
            "treatment of samples longer than `max_length` by `attune prepare`: cut or drop them",
            {{"cut", TooLong::cut}, {"drop", TooLong::drop}});
    }
  };

  explicit Classification(Options options) : options_(std::move(options)) {
    if (options_.separator.empty()) fail("separator: must be at least one character");
  }

  std::vector<std::string> labels(const Record& record) const override {
    if (options_.target == Target::value) return {"value"};
    return options_.target == Target::labels ? names_of(record) : std::vector{label_of(record)};
  }

  Sample encode(const Record& record, const EncodeContext& context) const override {
    Sample sample{{"tokens", torch::tensor(tokens_of(record.field("text"), context.tokenizer),
                                           torch::kInt32)}};
    if (options_.target == Target::value) {
      sample["value"] = torch::tensor(value_of(record));
    } else if (options_.target == Target::labels) {
      if (context.labels.empty())
        fail("labels: no record has a label; correct the field or the recipe's separator");
      auto row = torch::zeros({1, std::ssize(context.labels)});
      for (const auto& name : names_of(record)) row[0][label_id(name, context.labels)] = 1;
      sample["labels"] = row;
    } else {
      sample["label"] =
          torch::tensor(label_id(record.field("label"), context.labels), torch::kInt64);
    }
    return sample;
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    const auto column = samples.front().contains("label")    ? "label"
                        : samples.front().contains("labels") ? "labels"
                                                             : "value";
    std::vector<torch::Tensor> tokens;
    std::vector<torch::Tensor> targets;
    for (const auto& sample : samples) {
      tokens.push_back(shortened(sample.at("tokens")));
      targets.push_back(sample.at(column));
    }
    Batch batch = pack(tokens);
    batch.targets = targets.front().dim() == 0 ? torch::stack(targets) : torch::cat(targets);
    return batch;
  }

 private:
  std::vector<std::int32_t> tokens_of(const std::string& text, const Tokenizer& tokenizer) const {
    auto tokens = tokenizer.encode(text);
    const auto frame = tokenizer.encode("");
    if (tokens.size() <= frame.size()) throw Rejected("empty text");
    if (options_.max_length > 0 && std::ssize(tokens) > options_.max_length) {
      if (options_.too_long == TooLong::drop)
        throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
      const auto last = tokens.back();
      tokens.resize(static_cast<std::size_t>(options_.max_length));
      // [SEP] stays at the end, as the model knows it.
      if (!frame.empty() && frame.back() == last) tokens.back() = last;
    }
    return tokens;
  }

  static std::int64_t label_id(const std::string& name, const std::vector<std::string>& labels) {
    const auto found = std::find(labels.begin(), labels.end(), name);
    ATTUNE_ASSERT(found != labels.end(), "label {}", name);
    return found - labels.begin();
  }

  static const std::string& label_of(const Record& record) {
    const auto& label = record.field("label");
    if (label.empty())
      throw BadRow("a label that is empty",
                   fmt::format("{}, row {}: the label is empty; correct or remove the row",
                               record.source, record.row));
    return label;
  }

  static float value_of(const Record& record) {
    const auto& text = record.field("value");
    float value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
      throw BadRow("a value that is not a number",
                   fmt::format("{}, row {}: value is \"{}\", which is not a number; correct it, or "
                               "map another field with fields = {{ value = \"...\" }}",
                               record.source, record.row, text));
    return value;
  }

  /// None is allowed: a text that no label fits. [0, 1, 1] is a vector of 0 and 1, and would be
  /// read as the labels 0 and 1.
  std::vector<std::string> names_of(const Record& record) const {
    const auto names = record.list("labels", options_.separator);
    const std::set<std::string> different(names.begin(), names.end());
    const auto is_flag = [](const std::string& name) {
      return name == "0" || name == "1" || name == "false" || name == "true";
    };
    if (different.size() < names.size() && std::ranges::all_of(names, is_flag))
      throw BadRow("a 0 or 1 for each label",
                   fmt::format("{}, row {}: labels is a vector of 0 and 1; list the names or "
                               "numbers of the record's labels instead",
                               record.source, record.row));
    if (different.contains(""))
      throw BadRow("a label that is empty",
                   fmt::format("{}, row {}: labels holds an empty name; remove it", record.source,
                               record.row));
    return names;
  }

  /// The data may have been prepared for longer samples than this run takes: the beginning and the
  /// last token stay.
  torch::Tensor shortened(const torch::Tensor& tokens) const {
    const auto limit = options_.max_length;
    if (limit == 0 || tokens.size(0) <= limit) return tokens;
    return torch::cat({tokens.narrow(0, 0, limit - 1), tokens.narrow(0, tokens.size(0) - 1, 1)});
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("classification", "1.0.0", registry) {
  registry.dataset<Classification>(
      "classification", "texts with one label, with several labels, or with a numeric value");
}
