// A model's chat template and the special tokens it may use, from the files that transformers
// reads.
#pragma once
#include <attune/chat_source.hpp>

#include <filesystem>

namespace attune {

/// Reads a model folder, a tokenizer folder, a .gguf file or a folder with one. The text is empty
/// if there is no template.
ChatSource chat_template_of(const std::filesystem::path& place);

/// The same without the special tokens.
ChatSource chat_templates_in(const std::filesystem::path& place);

/// The template used in training, for a folder whose special tokens are those of `own`. Tokens that
/// differ are set at the start of the template. Empty if it writes the same text as `own`.
std::string other_chat_template(const ChatSource& trained, const ChatSource& own);

/// The template in `file`, with the special tokens of `place`.
ChatSource chat_template_in(const std::filesystem::path& file, const std::filesystem::path& place);

}  // namespace attune
