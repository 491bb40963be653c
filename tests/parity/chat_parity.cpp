// Chat templates against transformers' apply_chat_template: the same text, the same answers, the
// same conversations refused. Usage: chat_parity ROWS COUNT; the rows are written by
// chat_parity.py.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "attune/error.hpp"
#include "attune/rejected.hpp"
#include "attune/tokenizer.hpp"

namespace attune {
namespace {

using Json = nlohmann::ordered_json;

/// A token for each byte, so that tokens and text are the same thing.
Tokenizer byte_tokenizer() {
  nlohmann::json vocabulary;
  for (int i = 0; i < 256; ++i) vocabulary[fmt::format("<0x{:02X}>", i)] = i;
  return Tokenizer(
      {{"added_tokens", nlohmann::json::array()},
       {"decoder",
        {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
       {"model",
        {{"type", "BPE"},
         {"byte_fallback", true},
         {"vocab", vocabulary},
         {"merges", nlohmann::json::array()}}}});
}

std::string text_of(const std::vector<std::int32_t>& tokens) {
  return std::string(tokens.begin(), tokens.end());
}

std::vector<Message> messages_of(const Json& row) {
  std::vector<Message> messages;
  for (const auto& given : row.at("messages")) {
    Json extra = given;
    extra.erase("role");
    const bool said = given.contains("content") && given["content"].is_string();
    if (said) extra.erase("content");
    messages.push_back({given.at("role"), said ? given["content"].get<std::string>() : "",
                        extra.empty() ? "" : extra.dump()});
  }
  return messages;
}

std::vector<std::string> answers_of(const Conversation& conversation) {
  std::vector<std::string> answers;
  const auto text = text_of(conversation.tokens);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!conversation.answer[i]) continue;
    if (i == 0 || !conversation.answer[i - 1]) answers.emplace_back();
    answers.back() += text[i];
  }
  return answers;
}

struct Count {
  int texts = 0;
  int answers = 0;
  int refused = 0;
  int untold = 0;
  int lost = 0;  // refused because the template leaves out a part
};

/// "": they agree.
std::string difference(const Json& row, const Tokenizer& tokenizer, Count& count) {
  ChatSource source{row.at("jinja"), "", {}};
  for (const auto& [name, token] : row.at("tokens").items()) source.tokens[name] = token;
  const auto chat = ChatTemplate::from_jinja(source);
  const auto tools = row.at("tools").is_null() ? "" : row["tools"].dump();
  Conversation conversation;
  try {
    if (row.at("asks"))
      conversation.tokens = chat.prompt(messages_of(row), tokenizer, tools);
    else
      conversation = chat.encode(messages_of(row), tokenizer, tools);
  } catch (const Rejected& reason) {
    // Where the reference's answers cannot be told by comparing beginnings, ours may not be told
    // either.
    const bool ours = std::string(reason.what()).ends_with("cannot be located in the output");
    const bool untold = ours && !row.contains("refused") && row["answers"].is_null();
    count.untold += untold;
    if (untold) return "";
    const bool left_out = std::string(reason.what()).starts_with("the chat template omits");
    if (left_out && row.value("loses", false)) {
      ++count.lost;
      return "";
    }
    if (!row.contains("refused")) return fmt::format("refused: {}", reason.what());
    ++count.refused;
    const auto wanted = row["refused"].get<std::string>();
    return std::string(reason.what()).ends_with(wanted)
               ? ""
               : fmt::format("refused with \"{}\" instead of \"{}\"", reason.what(), wanted);
  } catch (const Error& error) {
    // Jinja finds some faults when it compiles, and so do we.
    return row.contains("refused") && ++count.refused ? "" : fmt::format("error: {}", error.what());
  }
  if (row.contains("refused"))
    return "accepted what is refused: " + row["refused"].get<std::string>();
  if (row.at("loses")) return "accepted although the template leaves out a part";
  ++count.texts;
  const auto text = text_of(conversation.tokens);
  if (text != row.at("text").get<std::string>())
    return "writes " + Json(text).dump() + "\ninstead of " + row["text"].dump();
  if (!row.contains("answers") || row["answers"].is_null()) return "";
  count.answers += !row["answers"].empty();
  std::vector<std::string> wanted;
  for (const auto& answer : row["answers"])
    if (!answer.get<std::string>().empty()) wanted.push_back(answer);
  return answers_of(conversation) == wanted ? ""
                                            : "answers " + Json(answers_of(conversation)).dump() +
                                                  "\ninstead of " + Json(wanted).dump();
}

int compare(const std::string& file, int conversations) {
  const auto tokenizer = byte_tokenizer();
  std::map<std::string, Count> counts;
  int wrong = 0;
  int expressions = 0;
  std::ifstream rows(file);
  for (std::string line; std::getline(rows, line);) {
    const auto row = Json::parse(line);
    const std::string name = row.at("name");
    const bool expression = name.starts_with("expression");
    expressions += expression;
    const auto problem =
        difference(row, tokenizer, expression ? counts["expressions"] : counts[name]);
    if (problem.empty() || ++wrong > 10) continue;
    fmt::print("{}: {}\n  messages {}\n  tools {}, asks {}\n", name, problem,
               row["messages"].dump(), !row["tools"].is_null(), row["asks"].dump());
    if (expression) fmt::print("  {}\n", row["jinja"].dump());
  }
  const auto with = [&](auto holds) {
    return std::count_if(counts.begin(), counts.end(),
                         [&](const auto& one) { return holds(one.second); });
  };
  const auto written = with([](const Count& count) { return count.texts > 0; });
  const auto answered = with([](const Count& count) { return count.answers > 0; });
  int texts = 0;
  int refused = 0;
  int untold = 0;
  int lost = 0;
  for (const auto& [name, count] : counts) {
    texts += count.texts;
    refused += count.refused;
    untold += count.untold;
    lost += count.lost;
  }
  fmt::print(
      "{} templates, of {} the answers, {} expressions: {} texts compared, {} refusals, {} with a "
      "part left out, {} answers not told, {} wrong\n",
      written, answered, expressions, texts, refused, lost, untold, wrong);
  return wrong == 0 && untold * 50 <= texts && written >= 95 && answered >= 60 &&
                 expressions >= 85 && texts >= 60 * conversations
             ? 0
             : 1;
}

}  // namespace
}  // namespace attune

int main(int, char** arguments) { return attune::compare(arguments[1], std::stoi(arguments[2])); }
