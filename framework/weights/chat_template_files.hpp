// The chat template a model comes with, and the tokens that it may name, from wherever transformers
// reads them.
#pragma once
#include <attune/chat_source.hpp>

#include <filesystem>

namespace attune {

/// Of a model folder, a tokenizer folder, a .gguf file or a folder that holds one. An empty text:
/// it has no template.
ChatSource chat_template_of(const std::filesystem::path& place);

/// The same without the tokens.
ChatSource chat_templates_in(const std::filesystem::path& place);

/// The template under which a model was trained, for a folder that says `own` of its special
/// tokens: where they differ, those of the training are set first. Empty where it writes what `own`
/// writes.
std::string other_chat_template(const ChatSource& trained, const ChatSource& own);

/// The template in a file, beside the tokens of such a place.
ChatSource chat_template_in(const std::filesystem::path& file, const std::filesystem::path& place);

}  // namespace attune
