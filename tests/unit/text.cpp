// Whole tokenizers over small vocabularies, their other forms, and chat templates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "attune/error.hpp"
#include "attune/rejected.hpp"
#include "attune/tokenizer.hpp"
#include "text/byte_level.hpp"
#include "text/chat_writer.hpp"
#include "tokenizer_folders.hpp"
#include "text/convert.hpp"
#include "text/unicode.hpp"

namespace attune {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// All bytes (id = byte), then merged tokens, then the two marks of ChatML.
Json metadata(const std::string& pre = "smollm") {
  Json tokens = Json::array();
  Json merges = Json::array();
  Json types = Json::array();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    text::append_byte_characters(token, std::string(1, static_cast<char>(byte)));
    tokens.push_back(token);
  }
  for (const auto& merge : {std::pair("h", "i"), {"\u0120", "hi"}, {"\u010a", "\u010a"}}) {
    merges.push_back(std::string(merge.first) + " " + merge.second);
    tokens.push_back(std::string(merge.first) + merge.second);
  }
  types = Json(Json::array_t(tokens.size(), 1));
  for (const char* mark : {"<|im_start|>", "<|im_end|>"}) {
    tokens.push_back(mark);
    types.push_back(3);
  }
  return {{"tokenizer.ggml.model", "gpt2"},     {"tokenizer.ggml.pre", pre},
          {"tokenizer.ggml.tokens", tokens},    {"tokenizer.ggml.merges", merges},
          {"tokenizer.ggml.token_type", types}, {"tokenizer.ggml.bos_token_id", 259}};
}

Tokenizer small(const std::string& pre = "smollm") {
  return Tokenizer(text::tokenizer_json_from_gguf(metadata(pre)));
}

std::string random_text(std::mt19937& random) {
  std::string bytes;
  for (std::size_t size = random() % 200; bytes.size() < size;)
    bytes += static_cast<char>(random() % (random() % 2 ? 256 : 128));
  return text::valid_utf8(bytes);
}

TEST(TokenizerTest, KnowsItsTokens) {
  const auto tokenizer = small();
  EXPECT_EQ(tokenizer.size(), 261);
  EXPECT_EQ(tokenizer.id("<|im_end|>"), 260);
  EXPECT_EQ(tokenizer.id("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer.token(257), "\u0120hi");
  EXPECT_THAT([&] { tokenizer.token(261); },
              ThrowsMessage<Error>(HasSubstr("no token has the id 261")));
}

TEST(TokenizerTest, AddedTokensInTheTextAreRecognised) {
  const auto tokenizer = small();
  EXPECT_EQ(tokenizer.encode("hi hi<|im_end|>"), (Ids{256, 257, 260}));
  EXPECT_EQ(tokenizer.decode({256, 260, 257}), "hi hi");
  EXPECT_EQ(tokenizer.decode({256, 260, 257}, false), "hi<|im_end|> hi");
}

TEST(TokenizerTest, EmptyTextHasNoTokens) {
  EXPECT_EQ(small().encode(""), Ids{});
  EXPECT_EQ(small().decode({}), "");
}

TEST(TokenizerTest, InvalidUtf8IsReadAsReplacementCharacters) {
  const auto tokenizer = small();
  EXPECT_EQ(tokenizer.encode("a\xFFz"), tokenizer.encode("a\uFFFDz"));
  EXPECT_EQ(tokenizer.decode({0xE2, 0x82}), "\xE2\x82");  // a token can end inside a character
}

TEST(TokenizerTest, InvalidUtf8IsCounted) {
  EXPECT_EQ(invalid_utf8(""), 0u);
  EXPECT_EQ(invalid_utf8("plain text, \u00e9 and \U0001F642, longer than a word"), 0u);
  EXPECT_EQ(invalid_utf8("a\xFFz\xE2\x82 \xF0\x9F\x98x\xC0\xAF"), 5u);
}

TEST(TokenizerTest, SpansAreTheBytesOfTheGivenText) {
  const auto tokenizer = small();
  const auto encoding = tokenizer.encode_with_spans("hi hi\xFF\u00e9<|im_end|>");
  EXPECT_EQ(encoding.ids, tokenizer.encode("hi hi\xFF\u00e9<|im_end|>"));
  const std::vector<Span> expected = {{0, 2}, {3, 5}, {5, 6}, {5, 6},
                                      {5, 6}, {6, 8}, {6, 8}, {8, 18}};
  EXPECT_EQ(encoding.spans, expected);
  EXPECT_TRUE(tokenizer.encode_with_spans("").spans.empty());
}

TEST(TokenizerTest, ByteLevelTextComesBackWhateverTheRules) {
  for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2", "default"}) {
    const auto tokenizer = small(pre);
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
      auto sample = random_text(random);
      if (pre == std::string("qwen2")) sample = text::normal_form(sample, text::NormalForm::nfc);
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(sample)), sample) << pre;
    }
  }
}

TEST(TokenizerTest, LongWordsAreEncodedInGoodTime) {
  const std::string words(200'000, 'h');
  EXPECT_EQ(small().encode(words).size(), words.size());
  EXPECT_EQ(small().encode(std::string(100'000, '\n')).size(), 50'000u);
}

TEST(TokenizerTest, ThreadsMayShareIt) {
  const auto first = small();
  const auto second = small("gpt-2");
  std::vector<std::string> samples;
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) samples.push_back(random_text(random));
  std::vector<Ids> expected;
  for (const auto& sample : samples) expected.push_back(first.encode(sample));
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < samples.size(); ++i) {
        second.encode(samples[i]);
        wrong[t] += first.encode(samples[i]) != expected[i];
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(TokenizerTest, FileOfAnotherShapeIsRefused) {
  const auto refusal = [](const char* json) {
    EXPECT_THAT([&] { Tokenizer{Json::parse(json)}; },
                ThrowsMessage<Error>(HasSubstr("tokenizer.json")))
        << json;
  };
  for (
      const char* json :
      {"{}", "[]", "null", R"({"model": 3})", R"({"model": {"type": "BPE"}})",
       R"({"model": {"type": 7}})",
       R"({"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}})",
       R"({"added_tokens": [{"id": 5, "content": "a"}], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})",
       R"({"added_tokens": [{"id": 5}], "model": {"type": "BPE", "vocab": {}, "merges": []}})"})
    refusal(json);
}

TEST(GgufVocabulary, BosIsAddedWhereTheFileSaysSo) {
  auto json = metadata();
  json["tokenizer.ggml.add_bos_token"] = true;
  EXPECT_EQ(Tokenizer(text::tokenizer_json_from_gguf(json)).encode("hi"), (Ids{259, 256}));
  EXPECT_EQ(Tokenizer(text::tokenizer_json_from_gguf(json)).encode("hi", false), (Ids{256}));
  json["tokenizer.ggml.bos_token_id"] = 9999;
  EXPECT_THAT([&] { text::tokenizer_json_from_gguf(json); },
              ThrowsMessage<Error>(HasSubstr("bos_token_id is 9999")));
}

TEST(GgufVocabulary, WhatIsNotKnownIsRefused) {
  const auto refusal = [](const char* key, const Json& value, const char* text) {
    auto json = metadata();
    json[key] = value;
    EXPECT_THAT([&] { text::tokenizer_json_from_gguf(json); },
                ThrowsMessage<Error>(HasSubstr(text)));
  };
  refusal("tokenizer.ggml.pre", "chameleon", "'chameleon'");
  refusal("tokenizer.ggml.model", "rwkv", "'rwkv'");
  refusal("tokenizer.ggml.model", "llama", "has no tokenizer.ggml.scores");
  refusal("tokenizer.ggml.token_type", Json::array({1}), "261 tokens but 1 token types");
  refusal("tokenizer.ggml.token_type", Json(Json::array_t(261, "x")), "vocabulary is invalid");
  EXPECT_THAT([] { text::tokenizer_json_from_gguf(Json::object()); },
              ThrowsMessage<Error>(HasSubstr("has no tokenizer.ggml.model")));
}

TEST(VocabTxt, IsABertTokenizer) {
  const Tokenizer tokenizer(
      fixtures::tokenizer_of_vocab("[PAD]\r\n[UNK]\n[CLS]\n[SEP]\nhello\n##s\n,\n", true));
  EXPECT_EQ(tokenizer.encode("H\u00e9llos, x[SEP]"), (Ids{2, 4, 5, 6, 1, 3, 3}));
  EXPECT_EQ(tokenizer.decode({2, 4, 5, 6, 3}), "hellos,");
  EXPECT_THAT([] { fixtures::tokenizer_of_vocab("[UNK]\n[CLS]\n", true); },
              ThrowsMessage<Error>(HasSubstr("no token [SEP]")));
}

TEST(Chat, AnswerIsTheAssistantsContentAndItsClosingMark) {
  const auto tokenizer = small();
  const auto conversation =
      ChatTemplate::by_name("chatml").encode({{"user", "hi"}, {"assistant", "hi hi"}}, tokenizer);
  EXPECT_EQ(tokenizer.decode(conversation.tokens, false),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhi hi<|im_end|>\n");
  Ids answer;
  for (std::size_t i = 0; i < conversation.tokens.size(); ++i)
    if (conversation.answer[i]) answer.push_back(conversation.tokens[i]);
  EXPECT_EQ(answer, (Ids{256, 257, 260}));
}

TEST(Chat, TokenAcrossHeaderAndAnswerBelongsToTheAnswer) {
  const auto tokenizer = small();
  const auto conversation =
      ChatTemplate::by_name("chatml").encode({{"assistant", "\n\nhi"}}, tokenizer);
  Ids answer;
  for (std::size_t i = 0; i < conversation.tokens.size(); ++i)
    if (conversation.answer[i]) answer.push_back(conversation.tokens[i]);
  // the header's line end and the first of the answer are one token
  EXPECT_EQ(answer, (Ids{258, 10, 256, 260}));
}

TEST(Chat, PromptEndsWithTheOpeningOfAnAnswer) {
  const auto tokenizer = small();
  EXPECT_EQ(
      tokenizer.decode(ChatTemplate::by_name("chatml").prompt({{"user", "hi"}}, tokenizer), false),
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      tokenizer.decode(ChatTemplate::by_name("plain").prompt({{"user", "hi"}}, tokenizer), false),
      "### user\nhi\n### end\n### assistant\n");
}

const char* chatml_jinja =
    "{% if messages[0].role != 'system' %}{{ \"<|im_start|>system\\nDon't guess, use "
    "\\\\boxed{}.<|im_end|>\\n\" }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + "
    "'<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

std::string written(const ChatTemplate& chat, const std::vector<Message>& messages,
                    std::string_view tools = {}) {
  const auto tokenizer = small();
  return tokenizer.decode(chat.encode(messages, tokenizer, tools).tokens, false);
}

/// The answers, each with a bar behind it.
std::string answered(const ChatTemplate& chat, const std::vector<Message>& messages) {
  const auto tokenizer = small();
  const auto conversation = chat.encode(messages, tokenizer);
  std::string text;
  for (std::size_t i = 0; i < conversation.tokens.size(); ++i) {
    if (conversation.answer[i]) text += tokenizer.decode({conversation.tokens[i]}, false);
    if (conversation.answer[i] &&
        (i + 1 == conversation.tokens.size() || !conversation.answer[i + 1]))
      text += "|";
  }
  return text;
}

TEST(Chat, DefaultSystemMessageIsTheModelsOwn) {
  const auto chat = ChatTemplate::from_jinja({chatml_jinja, "", {}});
  EXPECT_EQ(chat.name(), "jinja");
  EXPECT_EQ(chat.end_of_turn(), "<|im_end|>");
  EXPECT_EQ(written(chat, {{"user", "hi"}}),
            "<|im_start|>system\nDon't guess, use "
            "\\boxed{}.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n");
  EXPECT_EQ(written(chat, {{"system", "hi"}}), "<|im_start|>system\nhi<|im_end|>\n");
  EXPECT_TRUE(chat.encode({}, small()).tokens.empty());
}

TEST(Chat, OwnTemplatesAnswersEndWithTheirMarkAndAreThoseTrainedOn) {
  const auto chat = ChatTemplate::from_jinja({chatml_jinja, "", {}});
  std::vector<Message> messages = {
      {"user", "hi"}, {"assistant", "one"}, {"user", "hi"}, {"assistant", "two"}};
  EXPECT_EQ(answered(chat, messages), "one<|im_end|>|two<|im_end|>|");
  messages[1].train = false;
  EXPECT_EQ(answered(chat, messages), "two<|im_end|>|");
  EXPECT_EQ(answered(ChatTemplate::by_name("chatml"), messages), "two<|im_end|>|");
}

TEST(Chat, GenerationBlocksSayWhatAnAnswerIs) {
  const auto chat = ChatTemplate::from_jinja(
      {"{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ "
       "m.content }};{% endgeneration %}{% else %}{{ m.content }};"
       "{% endif %}{% endfor %}",
       "",
       {}});
  std::vector<Message> messages = {
      {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};
  EXPECT_EQ(answered(chat, messages), "b;|d;|");
  messages[3].train = false;
  EXPECT_EQ(answered(chat, messages), "b;|");
}

TEST(Chat, AnswersAreFoundWhereALaterTurnChangesWhatWasSaid) {
  // Thoughts stay in the last answer alone, and the last answer has an end of its own.
  const auto chat = ChatTemplate::from_jinja(
      {"{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}{{ "
       "m.content.split('</think>')[-1] }}<end>{% elif m.role == 'assistant' %}"
       "{{ m.content }}<return>{% else %}{{ m.content }}<end>{% endif %}{% endfor %}{% if "
       "add_generation_prompt %}<assistant><think>{% endif %}",
       "",
       {}});
  EXPECT_EQ(answered(chat, {{"user", "a"},
                            {"assistant", "<think>x</think>one"},
                            {"user", "b"},
                            {"assistant", "<think>y</think>two"}}),
            "one<end>|y</think>two<return>|");
}

TEST(Chat, MessagesArriveAsTransformersHandsThemOver) {
  const auto chat =
      ChatTemplate::from_jinja({"{{ messages | tojson }}{{ tools | tojson }}", "", {}});
  Message call{"assistant", ""};
  call.train = false;
  call.extra = R"({"content": null, "tool_calls": [{"b": 1, "a": 2.0}], "reasoning": "hm"})";
  EXPECT_EQ(
      written(chat, {call}, R"([{"name": "f"}])"),
      R"([{"thinking": "hm", "role": "assistant", "tool_calls": [{"b": 1, "a": 2.0}], "reasoning": "hm", "reasoning_content": "hm"}][{"name": "f"}])");
  EXPECT_EQ(written(chat, {{"user", "\u00e9\xff"}}),
            "[{\"role\": \"user\", \"content\": \"\u00e9\uFFFD\"}]null");
}

TEST(Chat, ToolsChooseTheTemplateForTools) {
  const auto chat = ChatTemplate::from_jinja({"plain {{ bos_token }} {{ messages[0].content }}",
                                              "tools {{ bos_token }} {{ messages[0].content }}",
                                              {{"bos_token", "B"}}});
  EXPECT_EQ(written(chat, {{"user", "hi"}}), "plain B hi");
  EXPECT_EQ(written(chat, {{"user", "hi"}}, "[]"), "tools B hi");
}

TEST(Chat, WhatATemplateRefusesIsRejectedInItsWords) {
  const auto chat =
      ChatTemplate::from_jinja({"{% if messages[0].role != 'user' %}{{ raise_exception('Begin with "
                                "a user') }}{% endif %}{{ messages[0].content + 1 }}",
                                "",
                                {}});
  EXPECT_THAT(
      [&] { chat.encode({{"assistant", "hi"}}, small()); },
      ThrowsMessage<Rejected>("the chat template refuses the conversation: Begin with a user"));
  EXPECT_THAT([&] { chat.encode({{"user", "hi"}}, small()); },
              ThrowsMessage<Rejected>(HasSubstr("can only concatenate str (not \"int\") to str")));
}

TEST(Chat, TemplatesSeeAFixedDate) {
  const auto chat = ChatTemplate::from_jinja(
      {"{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}", "", {}});
  EXPECT_EQ(written(chat, {{"user", "hi"}}), "26 Jul 2024 hi");
}

Tokenizer with_marks(const std::vector<std::string>& marks) {
  auto json = metadata();
  for (const auto& mark : marks) {
    json["tokenizer.ggml.tokens"].push_back(mark);
    json["tokenizer.ggml.token_type"].push_back(3);
  }
  return Tokenizer(text::tokenizer_json_from_gguf(json));
}

TEST(Chat, EachFamilyWritesInItsForm) {
  const auto tokenizer =
      with_marks({"<s>", "</s>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|begin_of_text|>",
                  "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"});
  const auto written = [&](const char* name) {
    return tokenizer.decode(
        ChatTemplate::by_name(name)
            .encode({{"system", "S"}, {"user", " U "}, {"assistant", " A "}}, tokenizer)
            .tokens,
        false);
  };
  EXPECT_EQ(written("alpaca"), "S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n");
  EXPECT_EQ(
      written("gemma"),
      "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n");
  EXPECT_EQ(written("llama2"), "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n U [/INST] A </s>");
  EXPECT_EQ(written("llama3"),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_"
            "header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>");
  EXPECT_EQ(written("mistral-v1"), "<s>[INST] S\n\n U  [/INST] A </s>");
  EXPECT_EQ(written("mistral-v3"), "<s>[INST] S\n\n U [/INST] A</s>");
  EXPECT_EQ(written("plain"),
            "### system\nS\n### end\n### user\n U \n### end\n### assistant\n A \n### end\n");
}

TEST(Chat, WhatAFamilyCannotWriteIsRefused) {
  EXPECT_THAT([] { ChatTemplate::by_name("llama3").encode({{"user", "hi"}}, small()); },
              ThrowsMessage<Error>(HasSubstr("'llama3' needs the token '<|begin_of_text|>'")));
  EXPECT_THAT(
      [] {
        ChatTemplate::by_name("alpaca").encode(
            {{"assistant", "hi"}},
            Tokenizer(
                Json::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})")));
      },
      ThrowsMessage<Error>(HasSubstr("the tokenizer has none of </s>")));
  const auto tokenizer = with_marks({"<s>", "</s>"});
  const auto rejected = [&](const char* name, const std::vector<Message>& messages,
                            const char* tools, const char* text) {
    EXPECT_THAT([&] { ChatTemplate::by_name(name).encode(messages, tokenizer, tools); },
                ThrowsMessage<Rejected>(HasSubstr(text)))
        << name;
  };
  Message call{"assistant", ""};
  call.extra = R"({"tool_calls": [{"function": {"name": "f"}}]})";
  rejected("llama2", {{"user", "hi"}, {"tool", "x"}}, "", "role 'tool'");
  rejected("llama2", {{"user", "hi"}, {"user", "x"}}, "", "user and assistant in turn");
  rejected("mistral-v1", {{"assistant", "hi"}}, "", "user and assistant in turn");
  rejected("mistral-v1", {{"system", "S"}, {"assistant", "hi"}}, "", "system message");
  rejected("chatml", {{"user", "hi"}, call}, "", "'tool_calls'");
  rejected("chatml", {{"user", "hi"}}, R"([{"name": "f"}])", "does not support tools");
}

/// What a writer makes of a conversation, and of it as a prompt; "refused" where it has no place
/// for it.
std::string written(const text::ChatWriter& writer, const std::vector<Message>& talk,
                    const Tokenizer& tokenizer) {
  try {
    return writer.write(talk, tokenizer, {}).text + "|" + writer.prompt(talk, tokenizer, {});
  } catch (const Rejected&) {
    return "refused";
  }
}

TEST(Chat, AFormIsTheSameInJinja) {
  const Tokenizer tokenizer(Json::parse(
      R"({"model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0, "<s>": 1, "</s>": 2,
      "<|begin_of_text|>": 3, "<|start_header_id|>": 4, "<|end_header_id|>": 5, "<|eot_id|>": 6, "<bos>": 7, "<start_of_turn>": 8,
      "<end_of_turn>": 9}}})"));
  const std::vector<std::vector<Message>> talks = {
      {{"user", " a\n"}, {"assistant", " \"b\" "}},
      {{"system", " S "},
       {"user", "c\\d'"},
       {"assistant", "\u00e9 "},
       {"user", "f"},
       {"assistant", "g"}},
      {{"user", "a"}},
      {{"user", "a"}, {"user", "b"}, {"assistant", "c"}},
      {{"system", "S"}, {"assistant", "c"}},
      {{"user", "a"}, {"tool", "b"}},
  };
  for (const auto& name : ChatTemplate::names()) {
    const auto form = text::named_writer(name);
    const auto jinja = text::jinja_writer({text::form_as_jinja(name, tokenizer), "", {}});
    for (const auto& talk : talks)
      EXPECT_EQ(written(*jinja, talk, tokenizer), written(*form, talk, tokenizer)) << name;
  }
}

TEST(Chat, UnknownTemplatesAreRefused) {
  EXPECT_THAT([] { ChatTemplate::by_name("chatlm"); },
              ThrowsMessage<Error>(HasSubstr("did you mean 'chatml'")));
  const auto unreadable = [](const char* jinja, const char* text) {
    const auto chat = ChatTemplate::from_jinja({jinja, "", {}});  // only who needs it minds
    EXPECT_THAT([&] { chat.encode({{"user", "hi"}}, small()); },
                ThrowsMessage<Error>(HasSubstr(text)))
        << jinja;
  };
  unreadable("a\n{% if x %}",
             "line 2: a block is not closed: 'endif' is missing; choose another with template = ");
  unreadable("{{ a b }}", "line 1: \"}}\" is missing before \"b\"");
  unreadable("{{ 'a }}", "line 1: a string is not closed");
  unreadable("{% include 'x' %}", "the tag 'include' is not supported in chat templates");
  unreadable("{% endfor %}", "there is no tag 'endfor' here");
  unreadable("{{ (1] }}", "unexpected \"]\"");
  unreadable("{# x", "a comment is not closed");
  unreadable("{{", "it ends inside a tag");
  unreadable("{{ 9999999999999999999 }}", "too large");
  const auto many = [](std::string_view part) {
    std::string text;
    for (int i = 0; i < 2'000; ++i) text += part;
    return text;
  };
  unreadable(("{{ " + many("(") + "a" + many(")") + " }}").c_str(), "nested too deeply");
  unreadable(("{{ a" + many("+ a") + " }}").c_str(), "nested too deeply");
  unreadable(("{{ a" + many("|trim") + " }}").c_str(), "nested too deeply");
  unreadable(("{{ " + many("not ") + "a }}").c_str(), "nested too deeply");
  unreadable(many("{% if x %}").c_str(), "nested too deeply");
}

}  // namespace
}  // namespace attune
