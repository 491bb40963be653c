// Pairs of answers to one prompt, one of them preferred.
#include <attune/plugin.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>

namespace {
using namespace attune;

/// A batch of B pairs holds 2 B samples: prompt and chosen of pair 0, prompt and rejected of pair
/// 0, the same of pair 1, ... Targets are the assistant's tokens of the answers, the mark that ends
/// a turn included. columns["chosen"]: bool [2 B], true for the first of each pair;
/// columns["pair"]: int64 [2 B], the position in Batch::ids.
class Preference final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length,
            "maximum length in tokens of the prompt plus the longer answer; `attune prepare` drops "
            "longer pairs, a run cuts their answers; 0: no limit")
          .at_least(0);
    }
  };

  explicit Preference(Options options) : options_(options) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    if (!context.chat)
      fail(
          "the tokenizer has no chat template; set template in the recipe to one of: {}, or to a "
          ".jinja file",
          fmt::join(ChatTemplate::names(), ", "));
    const auto chosen = answered(record, "chosen", context);
    const auto rejected = answered(record, "rejected", context);
    const auto prompt = std::min(chosen.begin, rejected.begin);
    if (!std::equal(chosen.tokens.begin(), chosen.tokens.begin() + prompt, rejected.tokens.begin()))
      throw Rejected("the answers change how the prompt is tokenized");
    if (chosen.tokens == rejected.tokens) throw Rejected("chosen and rejected are the same");
    const auto longer = std::max(std::ssize(chosen.tokens), std::ssize(rejected.tokens));
    if (options_.max_length > 0 && longer > options_.max_length)
      throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
    return {{"prompt", part(chosen.tokens, 0, prompt)},
            {"chosen", part(chosen.tokens, prompt)},
            {"chosen_mask", part(chosen.mask, prompt)},
            {"rejected", part(rejected.tokens, prompt)},
            {"rejected_mask", part(rejected.mask, prompt)}};
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> tokens;
    std::vector<torch::Tensor> targets;
    for (const auto& sample : samples)
      for (const char* answer : {"chosen", "rejected"}) {
        tokens.push_back(shortened(torch::cat({sample.at("prompt"), sample.at(answer)})));
        const auto mask = torch::cat(
            {torch::zeros(sample.at("prompt").sizes(), torch::kUInt8), mask_of(sample, answer)});
        targets.push_back(next_token_targets(tokens.back(), shortened(mask)));
      }
    Batch batch = pack(tokens);
    batch.targets = torch::cat(targets);
    const auto order = torch::arange(batch.samples());
    batch.columns["chosen"] = order.remainder(2).eq(0);
    batch.columns["pair"] = order.floor_divide(2);
    return batch;
  }

 private:
  /// A conversation up to the end of its answer. The answer runs from `begin` to the end of the
  /// tokens.
  struct Answered {
    std::vector<std::int32_t> tokens;
    std::vector<std::uint8_t> mask;  // 1: to be learnt
    std::ptrdiff_t begin;
  };

  static std::vector<Message> context_of(const Record& record) {
    auto messages = record.messages;
    if (messages.empty()) {
      if (record.fields.contains("system") || record.lists.contains("system"))
        messages.push_back({"system", record.field("system")});
      messages.push_back({"user", record.field("prompt")});
    }
    for (auto& message : messages) message.train = false;
    return messages;
  }

  static std::vector<Message> answer_of(const Record& record, const char* name) {
    const auto found = record.answers.find(name);
    auto answer = found == record.answers.end()
                      ? std::vector<Message>{{"assistant", record.field(name)}}
                      : found->second;
    for (const auto& message : answer)
      if (message.role == "assistant" && message.train && says_nothing(message))
        throw Rejected(fmt::format("empty {} answer", name));
    return answer;
  }

  static Answered answered(const Record& record, const char* name, const EncodeContext& context) {
    auto messages = context_of(record);
    const auto first = messages.size();
    for (auto& message : answer_of(record, name)) messages.push_back(std::move(message));
    auto [tokens, mask] = context.chat->encode(messages, context.tokenizer, record.tools);
    const auto last = std::find(mask.rbegin(), mask.rend(), 1);
    if (last == mask.rend()) throw Rejected(fmt::format("no {} answer to train on", name));
    // what follows the end of the last turn is no part of the answer
    const auto length = static_cast<std::size_t>(mask.rend() - last);
    const auto begin = messages[first].train
                           ? first_answer(mask)
                           : first_answer(all_trained(messages, first, record, context));
    tokens.resize(length);
    mask.resize(length);
    return {std::move(tokens), std::move(mask), begin};
  }

  /// The answer's tokens, whether they are to be learnt or not.
  static std::vector<std::uint8_t> all_trained(std::vector<Message> messages, std::size_t first,
                                               const Record& record, const EncodeContext& context) {
    for (auto i = first; i < messages.size(); ++i) messages[i].train = true;
    return context.chat->encode(messages, context.tokenizer, record.tools).answer;
  }

  static std::ptrdiff_t first_answer(const std::vector<std::uint8_t>& mask) {
    return std::find(mask.begin(), mask.end(), 1) - mask.begin();
  }

  static torch::Tensor part(const std::vector<std::int32_t>& tokens, std::ptrdiff_t from,
                            std::ptrdiff_t to) {
    return torch::tensor(std::vector(tokens.begin() + from, tokens.begin() + to), torch::kInt32);
  }
  static torch::Tensor part(const std::vector<std::int32_t>& tokens, std::ptrdiff_t from) {
    return part(tokens, from, std::ssize(tokens));
  }
  static torch::Tensor part(const std::vector<std::uint8_t>& mask, std::ptrdiff_t from) {
    return torch::tensor(std::vector(mask.begin() + from, mask.end()), torch::kUInt8);
  }

  /// Data prepared before answers could have several turns has no masks: all of an answer is
  /// learnt.
  static torch::Tensor mask_of(const Sample& sample, const std::string& answer) {
    const auto mask = sample.find(answer + "_mask");
    return mask == sample.end() ? torch::ones(sample.at(answer).sizes(), torch::kUInt8)
                                : mask->second;
  }

  torch::Tensor shortened(const torch::Tensor& tokens) const {
    return options_.max_length > 0 && tokens.size(0) > options_.max_length
               ? tokens.narrow(0, 0, options_.max_length)
               : tokens;
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("preference", "1.0.0", registry) {
  registry.dataset<Preference>("preference", "prompts with a chosen and a rejected answer");
}
