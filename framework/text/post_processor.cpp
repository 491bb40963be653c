#include "text/post_processor.hpp"

#include "text/part.hpp"
#include "text/vocabulary.hpp"

namespace attune::text {
namespace {

PostProcessor surround(std::vector<std::int32_t> before, std::vector<std::int32_t> after) {
  return [before = std::move(before), after = std::move(after)](std::vector<std::int32_t>& ids) {
    ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
  };
}

/// "single": a list of {"SpecialToken": {"id": name}} and one {"Sequence": {"id": "A"}}; the names are explained in "special_tokens".
PostProcessor template_processing(const Json& json) {
  std::vector<std::int32_t> before, after;
  bool seen = false;
  for (const auto& piece : json.at("single")) {
    if (piece.contains("Sequence")) {
      if (seen) fail("tokenizer.json: the template for a single text holds the text twice; it must hold it once");
      seen = true;
      continue;
    }
    const auto name = piece.at("SpecialToken").at("id").get<std::string>();
    const auto& known = json.at("special_tokens");
    if (!known.contains(name)) fail("tokenizer.json: the template names '{}', which is not in its special_tokens; add it there", name);
    for (const auto& id : known.at(name).at("ids")) (seen ? after : before).push_back(checked_id(id, name));
  }
  if (!seen) fail("tokenizer.json: the template for a single text does not hold the text; add {{\"Sequence\": {{\"id\": \"A\"}}}}");
  return surround(before, after);
}

PostProcessor bert(const Json& json) {
  const auto id = [&](const char* key) { return checked_id(json.at(key).at(1), key); };
  return surround({id("cls")}, {id("sep")});
}

PostProcessor sequence(const Json& json) {
  return [parts = make_parts(json.at("processors"), make_post_processor)](std::vector<std::int32_t>& ids) {
    for (const auto& part : parts) part(ids);
  };
}

}  // namespace

PostProcessor make_post_processor(const Json& json) {
  if (json.is_null()) return [](std::vector<std::int32_t>&) {};
  static const Makers<PostProcessor> makers = {
      {"BertProcessing", bert},
      {"ByteLevel", [](const Json&) { return make_post_processor(nullptr); }},  // it moves offsets alone
      {"Sequence", sequence},
      {"TemplateProcessing", template_processing},
  };
  return make_part("post-processor", json, makers);
}

}  // namespace attune::text
