// Conversations: a prompt and its answer, or a list of messages. Trained on the answers alone,
// unless told otherwise.
#include <attune/plugin.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>

namespace {
using namespace attune;

enum class TooLong { drop, cut };
enum class TrainOn { answers, everything };

class Instruction final : public Dataset {
 public:
  struct Options {
    std::int64_t max_length = 0;
    TooLong too_long = TooLong::drop;
    TrainOn train_on = TrainOn::answers;
    static void describe(Schema<Options>& s) {
      s.key("max_length", &Options::max_length, "maximum sample length in tokens; 0: no limit")
          .at_least(0);
      s.key("too_long", &Options::too_long,
            "treatment of samples longer than `max_length` by `attune prepare`: drop or cut them",
            {{"drop", TooLong::drop}, {"cut", TooLong::cut}});
      s.key("train_on", &Options::train_on,
            "tokens that are training targets: those of the answers, or all",
            {{"answers", TrainOn::answers}, {"everything", TrainOn::everything}});
    }
  };

  explicit Instruction(Options options) : options_(std::move(options)) {}

  Sample encode(const Record& record, const EncodeContext& context) const override {
    if (!context.chat)
      fail(
          "the tokenizer has no chat template; set template in the recipe to one of: {}, or to a "
          ".jinja file",
          fmt::join(ChatTemplate::names(), ", "));
    auto [tokens, answer] = context.chat->encode(messages(record), context.tokenizer, record.tools);
    if (options_.max_length > 0 && std::ssize(tokens) > options_.max_length) {
      if (options_.too_long == TooLong::drop)
        throw Rejected(fmt::format("longer than {} tokens", options_.max_length));
      tokens.resize(static_cast<std::size_t>(options_.max_length));
      answer.resize(tokens.size());
    }
    // The first token follows nothing, so it is never a target.
    if (!answer.empty()) answer.front() = 0;
    if (std::find(answer.begin(), answer.end(), 1) == answer.end())
      throw Rejected("no answer to train on");
    return {{"tokens", torch::tensor(tokens, torch::kInt32)},
            {"loss_mask", torch::tensor(answer, torch::kUInt8)}};
  }

  Batch collate(const std::vector<Sample>& samples) const override {
    std::vector<torch::Tensor> tokens;
    std::vector<torch::Tensor> targets;
    for (const auto& sample : samples) {
      tokens.push_back(shortened(sample.at("tokens")));
      targets.push_back(next_token_targets(tokens.back(), options_.train_on == TrainOn::everything
                                                              ? torch::Tensor()
                                                              : shortened(sample.at("loss_mask"))));
    }
    Batch batch = pack(tokens);
    batch.targets = torch::cat(targets);
    return batch;
  }

 private:
  static std::vector<Message> messages(const Record& record) {
    std::vector<Message> messages = record.messages;
    if (messages.empty()) {
      if (record.fields.contains("system") || record.lists.contains("system"))
        messages.push_back({"system", record.field("system")});
      messages.push_back({"user", record.field("prompt")});
      messages.push_back({"assistant", record.field("response")});
    }
    // The mark that ends a turn would still be a target.
    for (const auto& message : messages)
      if (message.role == "assistant" && message.train && says_nothing(message))
        throw Rejected("empty answer");
    return messages;
  }

  /// The data may have been prepared for longer samples than this run takes.
  torch::Tensor shortened(const torch::Tensor& column) const {
    return options_.max_length > 0 && column.size(0) > options_.max_length
               ? column.narrow(0, 0, options_.max_length)
               : column;
  }

  Options options_;
};

}  // namespace

ATTUNE_PLUGIN("instruction", "1.0.0", registry) {
  registry.dataset<Instruction>(
      "instruction", "conversations for instruction tuning, with the loss on the answers");
}
