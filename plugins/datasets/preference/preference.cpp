// Pairs of answers to one prompt, one of them preferred.
#include <attune/plugin.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>

namespace {
using namespace attune;

/// A batch of B pairs holds 2 B samples: prompt and chosen of pair 0, prompt and rejected of pair 0, the same of pair 1, ... Targets are the
/// tokens of the answers, the mark that ends a turn included. columns["chosen"]: bool [2 B], true for the first of each pair;
/// columns["pair"]: int64 [2 B], the position in Batch::ids.
class Preference final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length, "longest prompt with its longer answer, in tokens: prepare drops longer pairs, a run cuts the answers; 0: any")
          .at_least(0);
    }
  };

  explicit Preference(Options options) : options_(options) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    if (!context.chat)
      fail("the tokenizer comes with no chat template; set template in the recipe to one of: {}, or to a .jinja file", fmt::join(ChatTemplate::names(), ", "));
    const auto chosen = answered(record, "chosen", context), rejected = answered(record, "rejected", context);
    const auto prompt = std::min(chosen.begin, rejected.begin);
    if (!std::equal(chosen.tokens.begin(), chosen.tokens.begin() + prompt, rejected.tokens.begin())) throw Rejected("the answers change how the prompt is tokenized");
    if (chosen.tokens == rejected.tokens) throw Rejected("chosen and rejected are the same");
    const auto longer = std::max(std::ssize(chosen.tokens), std::ssize(rejected.tokens));
    if (options_.max_length > 0 && longer > options_.max_length) throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
    return {{"prompt", part(chosen.tokens, 0, prompt)},
            {"chosen", part(chosen.tokens, prompt, std::ssize(chosen.tokens))},
            {"rejected", part(rejected.tokens, prompt, std::ssize(rejected.tokens))}};
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> tokens, targets;
    for (const auto& sample : samples)
      for (const char* answer : {"chosen", "rejected"}) {
        const auto prompt = sample.at("prompt").size(0);
        tokens.push_back(shortened(torch::cat({sample.at("prompt"), sample.at(answer)})));
        auto mask = torch::ones(tokens.back().sizes(), torch::kUInt8);
        mask.narrow(0, 0, std::min(prompt, mask.size(0))).zero_();
        targets.push_back(next_token_targets(tokens.back(), mask));
      }
    Batch batch = pack(tokens);
    batch.targets = torch::cat(targets);
    const auto order = torch::arange(batch.samples());
    batch.columns["chosen"] = order.remainder(2).eq(0);
    batch.columns["pair"] = order.floor_divide(2);
    return batch;
  }

 private:
  /// A conversation with its last answer, which runs from `begin` to the end of the tokens.
  struct Answered {
    std::vector<std::int32_t> tokens;
    std::ptrdiff_t begin;
  };

  static Answered answered(const Record& record, const char* field, const EncodeContext& context) {
    auto messages = record.messages;
    if (messages.empty()) {
      if (record.fields.contains("system")) messages.push_back({"system", record.field("system")});
      messages.push_back({"user", record.field("prompt")});
    }
    messages.push_back({"assistant", record.field(field)});
    if (messages.back().content.find_first_not_of(" \t\r\n") == std::string::npos) throw Rejected(fmt::format("empty {} answer", field));
    auto [tokens, answer] = context.chat->encode(messages, context.tokenizer, record.tools);
    const auto last = std::find(answer.rbegin(), answer.rend(), 1);
    const auto before = std::find(last, answer.rend(), 0);
    tokens.resize(static_cast<std::size_t>(answer.rend() - last));  // what follows the end of the turn is no part of the answer
    return {std::move(tokens), answer.rend() - before};
  }

  static torch::Tensor part(const std::vector<std::int32_t>& tokens, std::ptrdiff_t from, std::ptrdiff_t to) {
    return torch::tensor(std::vector(tokens.begin() + from, tokens.begin() + to), torch::kInt32);
  }

  torch::Tensor shortened(const torch::Tensor& tokens) const {
    return options_.max_length > 0 && tokens.size(0) > options_.max_length ? tokens.narrow(0, 0, options_.max_length) : tokens;
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("preference", "1.0.0", registry) { registry.dataset<Preference>("preference", "prompts with a preferred and a rejected answer"); }
