// Every loss at its extremes. The losses are whatever the registry holds: each strategy, with each
// of its choices, on the samples of each dataset plugin and on each model that takes them. A new
// plugin is tested without a change here; one whose samples this test cannot make fails it.
#include <attune/dataset.hpp>
#include <attune/linear.hpp>
#include <gmock/gmock.h>

#include "alone.hpp"
#include "tiny_models.hpp"

namespace {

using namespace attune;
using namespace attune::tiny;
using nlohmann::json;

/// Every letter is a token, and so many others that the models' 31 are used.
Tokenizer letters() {
  json vocabulary{{"?", 0}};
  for (char letter = 'a'; letter <= 'z'; ++letter)
    vocabulary[std::string(1, letter)] = vocabulary.size();
  for (const char* other : {" ", "\n", ":", "."}) vocabulary[other] = vocabulary.size();
  return Tokenizer(json{{"version", "1.0"},
                        {"added_tokens", json::array()},
                        {"normalizer", nullptr},
                        {"pre_tokenizer", nullptr},
                        {"post_processor", nullptr},
                        {"decoder", nullptr},
                        {"model",
                         {{"type", "BPE"},
                          {"unk_token", "?"},
                          {"vocab", vocabulary},
                          {"merges", json::array()},
                          {"fuse_unk", false},
                          {"byte_fallback", false}}}});
}

/// A record with every field that a dataset plugin reads, the same at each length.
Record record_of(int i) {
  const std::vector<std::string> labels{"no", "perhaps", "yes"};
  const std::string words = std::string("ab") + static_cast<char>('c' + i);
  const std::string label = labels[i % 3];
  Record record;
  record.fields = {{"text", words},
                   {"prompt", words},
                   {"response", "yz"},
                   {"chosen", "good"},
                   {"rejected", "b"},
                   {"first", words},
                   {"second", "ok"},
                   {"label", label},
                   {"labels", label},
                   {"value", std::to_string(i)},
                   {"words", R"(["ab","c"])"},
                   {"tags", R"(["no",")" + label + R"("])"}};
  record.image = torch::randint(255, {8, 8, 3}, at::kByte);
  record.source = "made";
  record.row = i + 1;
  return record;
}

/// The options of an entry: its defaults, and one set for each of its choices. What is required is
/// "there".
std::vector<Values> variants_of(const Registry::Entry& entry) {
  Values required;
  for (const auto& option : entry.schema.options)
    if (option.is_required) required[option.name] = std::string("there");
  // one of two options that are not both required
  if (entry.name == "distill") required["teacher"] = std::string("there");
  std::vector<Values> variants{required};
  for (const auto& option : entry.schema.options)
    for (const auto& choice : option.allowed) {
      if (OptionValue(choice) == option.fallback ||
          option.fallback.index() != OptionValue(choice).index())
        continue;
      variants.push_back(required);
      variants.back()[option.name] = choice;
    }
  return variants;
}

std::shared_ptr<void> options_with(const Registry::Entry& entry, const Values& values) {
  const auto options = entry.defaults();
  for (const auto& option : entry.schema.options)
    if (values.contains(option.name)) option.set(options.get(), values.at(option.name));
  return options;
}

std::string text_of(const Values& values) {
  std::string text;
  for (const auto& [name, value] : values) text += fmt::format(" {} = {}", name, to_toml(value));
  return text;
}

bool is_alike(const Batch& a, const Batch& b) {
  const bool same_columns =
      std::equal(a.columns.begin(), a.columns.end(), b.columns.begin(), b.columns.end(),
                 [](const auto& x, const auto& y) { return x.first == y.first; });
  return same_columns && a.tokens.equal(b.tokens) &&
         a.targets.scalar_type() == b.targets.scalar_type() && a.targets.equal(b.targets);
}

/// Batches of each dataset plugin that reads text, by a name for messages; of four records each.
std::vector<std::pair<std::string, Batch>> all_batches() {
  const auto tokenizer = letters();
  const auto chat = ChatTemplate::by_name("plain");
  std::vector<std::pair<std::string, Batch>> batches;
  for (const auto& name : registry().names(Kind::dataset)) {
    const auto& entry = registry().find(Kind::dataset, name);
    for (const auto& values : variants_of(entry)) {
      const auto dataset = std::static_pointer_cast<Dataset>(
          entry.build(options_with(entry, values).get(), nullptr));
      if (!dataset->reads_text()) continue;  // its targets are those of a classifier of texts
      std::vector<Sample> samples;
      for (int i = 0; i < 4; ++i) {
        const auto record = record_of(i);
        const auto of_record =
            dataset->encode_all(record, {tokenizer, &chat, {"no", "perhaps", "yes"}});
        samples.insert(samples.end(), of_record.begin(), of_record.end());
      }
      auto batch = dataset->collate(samples);
      batch.ids = {0, 1, 2, 3};
      const bool is_known = std::any_of(batches.begin(), batches.end(), [&](const auto& other) {
        return is_alike(other.second, batch);
      });
      if (!is_known) batches.emplace_back(name + text_of(values), std::move(batch));
    }
  }
  return batches;
}

using Make = std::function<std::shared_ptr<Model>()>;

std::vector<std::pair<std::string, Make>> all_models() {
  const auto headed = [](const std::string& head, const std::vector<std::string>& labels) {
    return [=] {
      const auto& entry = registry().find(Kind::model, "bert");
      auto weights = bert_weights();
      ModelContext context{bert_config, weights, labels};
      return std::static_pointer_cast<Model>(
          entry.build(options_with(entry, {{"head", head}}).get(), &context));
    };
  };
  const std::vector<std::string> three{"no", "perhaps", "yes"};
  const auto decoder = [] {
    auto config = llama_config;
    config["max_position_embeddings"] = 96;
    return build_model("llama", config, llama_weights());
  };
  return {{"decoder", decoder},
          {"classifier", headed("classification", three)},
          {"value", headed("classification", {"value"})},
          {"tags", headed("token_classification", three)},
          {"embedding", headed("embedding", {})}};
}

// ---- What is extreme

/// Probabilities of the targets: one, zero, both of them in turn, or all outputs alike.
const std::vector<std::string> extremes{"right", "wrong", "right, then wrong", "wrong, then right",
                                        "equal"};
const std::vector<std::string> masks{"as made", "first sample masked", "all masked", "one class"};

/// Logits of +-10^4.
void stretch(Model& model, const Batch& batch, bool equal) {
  const torch::NoGradGuard no_grad;
  auto& projection = model.projection();
  const double largest = model.logits(batch).abs().max().item<double>();
  projection.weight.mul_(equal ? 0 : 1e4 / largest);
  if (projection.bias.defined()) projection.bias.mul_(equal ? 0 : 1e4 / largest);
}

std::vector<std::int64_t> samples_of_targets(const Batch& batch) {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = 0; i < batch.targets.size(0); ++i) {
    std::int64_t sample = i;
    if (batch.targets.size(0) == batch.length())
      for (sample = 0; batch.starts[sample + 1] <= i;) ++sample;
    samples.push_back(sample);
  }
  return samples;
}

/// Sets the targets to what the model is surest of, or thinks least likely.
void aim(Batch& batch, Model& model, const std::string& extreme) {
  if (batch.targets.is_floating_point() || model.spec().task == Task::embedding) return;
  if (batch.targets.max().item<std::int64_t>() >= model.spec().outputs)
    fail("the batch has other classes than the model");
  if (extreme == "equal") return;
  const torch::NoGradGuard no_grad;
  const at::Tensor logits = model.logits(batch);
  const at::Tensor likeliest = logits.argmax(1);
  const at::Tensor unlikeliest = logits.argmin(1);
  if (logits.size(0) != batch.targets.size(0))
    fail("the model has an output for {} rows and the batch {} targets", logits.size(0),
         batch.targets.size(0));
  const auto samples = samples_of_targets(batch);
  for (std::int64_t i = 0; i < batch.targets.size(0); ++i) {
    if (batch.targets[i].item<std::int64_t>() == ignored_target) continue;
    const bool first = samples[i] % 2 == 0;
    const bool right = extreme == "right" || (extreme == "right, then wrong" && first) ||
                       (extreme == "wrong, then right" && !first);
    batch.targets[i] = (right ? likeliest : unlikeliest)[i];
  }
}

void mask(Batch& batch, const std::string& how) {
  batch.targets = batch.targets.clone();
  if (how == "one class") {
    batch.tokens = at::full_like(batch.tokens, 3);
    if (!batch.targets.is_floating_point())
      batch.targets.masked_fill_(batch.targets != ignored_target, 0);
    return;
  }
  if (batch.targets.is_floating_point() || how == "as made") return;
  const auto samples = samples_of_targets(batch);
  for (std::int64_t i = 0; i < batch.targets.size(0); ++i)
    if (how == "all masked" || samples[i] == 0) batch.targets[i] = ignored_target;
}

struct Case {
  std::vector<std::pair<std::string, Values>> list;
  Make make;
  Batch batch;
  at::ScalarType dtype;
};

/// The first trained parameter whose gradient is not finite, or "loss"; "" when all is. Error when
/// these do not go together.
std::string not_finite_in(Case c, const std::string& extreme, const std::string& masked) {
  torch::manual_seed(3);
  const auto model = c.make();
  model->module().to(c.dtype);
  const Batch whole = c.batch;
  mask(c.batch, masked);
  if (model->spec().task != Task::embedding) stretch(*model, c.batch, extreme == "equal");
  aim(c.batch, *model, masked == "one class" ? "equal" : extreme);
  const auto strategies = listed(c.list);
  strategies->prepare(*model);
  Alone run;
  run.teacher = c.make();
  run.teacher->module().to(c.dtype);
  for (auto& parameter : run.teacher->module().parameters()) parameter.requires_grad_(false);
  if (run.teacher->spec().task != Task::embedding) stretch(*run.teacher, c.batch, false);
  run.weights = std::vector<double>(static_cast<std::size_t>(model->spec().outputs), 2.0);
  run.batches = {c.batch, whole};
  strategies->begin(*model, run.context);
  {
    const torch::NoGradGuard no_grad;
    for (auto& [name, parameter] : trainable(*model))
      parameter.add_(torch::randn_like(parameter) * 0.02);
  }
  const auto loss = strategies->loss(*model, training(c.batch));
  EXPECT_GE(loss.count, 0);
  const bool has_nothing = masked == "all masked" && !c.batch.targets.is_floating_point() &&
                           model->spec().task != Task::embedding;
  EXPECT_TRUE(loss.count == 0 || !has_nothing);
  if (!std::isfinite(loss.sum.item<double>())) return "loss";
  if (!loss.sum.requires_grad()) return "";  // nothing in it is trained on
  loss.sum.backward();
  for (const auto& [name, parameter] : trainable(*model))
    if (parameter.grad().defined() && !parameter.grad().isfinite().all().item<bool>()) return name;
  return "";
}

/// Why it does not; "" when it does.
std::string objection_to(const Case& c) {
  const auto said = error_of([&] { not_finite_in(c, "right", "as made"); });
  return said == "no error" ? "" : said;
}

/// By itself when it trains something, else over a strategy that does.
std::vector<std::vector<std::pair<std::string, Values>>> lists_with(const std::string& strategy,
                                                                    const Values& values) {
  return {{{strategy, values}},
          {{"lora", {{"rank", std::int64_t{4}}}}, {strategy, values}},
          {{"full", {}}, {strategy, values}}};
}

struct LossAtItsExtremes : testing::TestWithParam<std::string> {};

TEST_P(LossAtItsExtremes, has_a_finite_value_and_finite_gradients) {
  const auto& entry = registry().find(Kind::strategy, GetParam());
  static const auto batches = all_batches();
  int tried = 0;
  std::string objections;
  for (const auto& values : variants_of(entry))
    for (const auto& list : lists_with(entry.name, values))
      for (const auto& [model, make] : all_models())
        for (const auto& [dataset, batch] : batches) {
          if (const auto said = objection_to({list, make, batch, at::kFloat}); !said.empty()) {
            objections += fmt::format("\n{} after {}, {}, {}: {}", entry.name, list.front().first,
                                      model, dataset, said);
            continue;
          }
          for (const auto dtype : {at::kFloat, at::kBFloat16})
            for (const auto& extreme : extremes)
              for (const auto& masked : masks) {
                // where there is nothing to aim at
                if (extreme != "right" && (masked == "all masked" || masked == "one class"))
                  continue;
                ++tried;
                EXPECT_EQ(not_finite_in({list, make, batch, dtype}, extreme, masked), "")
                    << entry.name << text_of(values) << " after " << list.front().first << ", "
                    << model << ", " << dataset << ", " << toString(dtype) << ", " << extreme
                    << ", " << masked;
              }
        }
  EXPECT_GT(tried, 0) << "no model and dataset of this test go with it:" << objections;
}

INSTANTIATE_TEST_SUITE_P(every, LossAtItsExtremes,
                         testing::ValuesIn(registry().names(Kind::strategy)),
                         [](const auto& info) { return info.param; });

// ---- What adds nothing

TEST(samples_without_target, are_found_by_row) {
  Batch batch = pack({torch::tensor({1, 2, 3}), torch::tensor({4, 5})});
  batch.targets = torch::tensor({2, 3, -100, -100, -100}, at::kLong);
  batch.ids = {7, 9};
  EXPECT_EQ(targets_by_sample(batch), (std::vector<std::int64_t>{2, 0}));
  EXPECT_EQ(rows_without_target(batch), std::vector<std::int64_t>{9});
  batch.ids = {7};  // both are answers of one pair
  EXPECT_EQ(rows_without_target(batch), std::vector<std::int64_t>{7});
  batch.targets = torch::tensor({1, -100}, at::kLong);  // of samples, not of tokens
  batch.ids = {7, 9};
  EXPECT_EQ(rows_without_target(batch), std::vector<std::int64_t>{9});
}

TEST(preferences, leave_out_pairs_whose_answer_was_cut_away) {
  Batch batch = batch_of({5, 4, 6, 6});
  Batch whole = batch_of({1});
  batch.targets = batch.tokens.roll(-1);
  for (std::size_t end = 1; end < batch.starts.size(); ++end)
    batch.targets[batch.starts[end] - 1] = ignored_target;
  batch.columns["chosen"] = torch::arange(4).remainder(2).eq(0);
  whole = pack({batch.tokens.slice(0, 0, 5), batch.tokens.slice(0, 5, 9)});
  whole.targets = batch.targets.slice(0, 0, 9).clone();
  whole.columns["chosen"] = torch::arange(2).remainder(2).eq(0);
  batch.targets.slice(0, 15).fill_(ignored_target);  // the second pair's rejected answer
  for (const std::string plugin : {"dpo", "orpo", "kto"}) {
    const auto loss_of = [&](const Batch& given) {
      const auto model = llama();
      const auto list = listed({{"lora", {{"rank", std::int64_t{4}}}}, {plugin, {}}});
      list->prepare(*model);
      return list->loss(*model, given);
    };
    const auto with = loss_of(batch);
    const auto without = loss_of(whole);
    EXPECT_EQ(with.count, without.count) << plugin;
    EXPECT_NEAR(with.sum.item<double>(), without.sum.item<double>(), 1e-5) << plugin;
  }
}

}  // namespace
