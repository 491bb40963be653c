#include "text/convert.hpp"

#include <string>
#include <vector>

#include "text/part.hpp"
#include "text/tokenizer_json.hpp"

namespace attune::text {

Json added_token(std::int64_t id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

Json template_processing(const std::vector<NamedToken>& before,
                         const std::vector<NamedToken>& after) {
  const auto side = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  Json single = Json::array();
  Json pair = Json::array();
  Json tokens = Json::object();
  const auto put = [&](const std::string& name, std::int64_t id) {
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  for (const auto& [name, id] : before) put(name, id);
  single.push_back(side("A", 0));
  for (const auto& [name, id] : after) put(name, id);
  pair = single;
  pair.push_back(side("B", 1));
  for (const auto& [name, id] : after)
    pair.push_back({{"SpecialToken", {{"id", name}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

Json tokenizer_json(Json added, Json normalizer, Json pre_tokenizer, Json post_processor,
                    Json decoder, Json model) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"post_processor", std::move(post_processor)},
          {"decoder", std::move(decoder)},
          {"model", std::move(model)}};
}

Json bert_tokenizer_json(Json vocab, Json added, bool lowercase) {
  for (const char* name : {"[UNK]", "[CLS]", "[SEP]"})
    if (!vocab.contains(name))
      fail("the vocabulary has no token {}, so it is not a BERT vocabulary; check the file", name);
  Json post_processor =
      template_processing({{"[CLS]", vocab.at("[CLS]")}}, {{"[SEP]", vocab.at("[SEP]")}});
  return tokenizer_json(std::move(added),
                        {{"type", "BertNormalizer"},
                         {"clean_text", true},
                         {"handle_chinese_chars", true},
                         {"strip_accents", nullptr},
                         {"lowercase", lowercase}},
                        {{"type", "BertPreTokenizer"}}, std::move(post_processor),
                        {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}},
                        {{"type", "WordPiece"},
                         {"unk_token", "[UNK]"},
                         {"continuing_subword_prefix", "##"},
                         {"max_input_chars_per_word", 100},
                         {"vocab", std::move(vocab)}});
}

std::vector<std::string> lines(std::string_view text) {
  std::vector<std::string> result;
  while (!text.empty()) {
    const auto end = text.find('\n');
    auto line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    result.emplace_back(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return result;
}

}  // namespace attune::text
