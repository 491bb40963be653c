#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.hpp"

#include <pcre2.h>

#include "attune/error.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// PCRE2's \s also holds U+180E, which is not White_Space; tokenizers' does not.
std::string with_unicode_whitespace(std::string_view expression) {
  std::string result;
  for (std::size_t i = 0; i < expression.size(); ++i) {
    const bool pair = expression[i] == '\\' && i + 1 < expression.size();
    if (!pair) {
      result += expression[i];
      continue;
    }
    const char escape = expression[++i];
    if (escape == 's')
      result += "\\p{White_Space}";
    else if (escape == 'S')
      result += "\\P{White_Space}";
    else
      result.append({'\\', escape});
  }
  return result;
}

std::string message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

/// What one thread needs to match, whatever the pattern.
struct Workspace {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 16 << 20, nullptr);

  Workspace() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~Workspace() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

}  // namespace

Pattern::Pattern(std::string_view expression) : expression_(expression) {
  const std::string translated = with_unicode_whitespace(expression);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr);
  if (!code) fail("tokenizer.json: the pattern '{}' does not compile: {} (at '{}')", expression_, message(error), translated.substr(offset));
  code_ = std::shared_ptr<const void>(code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT pcre2_match interprets
}

void Pattern::find_all(std::string_view text, std::vector<Span>& matches) const {
  thread_local Workspace workspace;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(workspace.match);
  for (std::size_t at = 0; at < text.size();) {
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK, workspace.match,
                                  workspace.context);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0) fail("the pattern '{}' fails on a text of {} bytes at byte {}: {}", expression_, text.size(), at, message(found));
    if (bounds[1] > bounds[0]) {
      matches.push_back({bounds[0], bounds[1]});
      at = bounds[1];
    } else {
      at = bounds[1];
      if (at < text.size()) next_code_point(text, at);
    }
  }
}

std::string escaped(std::string_view literal) {
  std::string result;
  for (const char c : literal) {
    if (std::string_view(R"(\^$.|?*+()[]{}-#&~ )").find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

}  // namespace attune::text
