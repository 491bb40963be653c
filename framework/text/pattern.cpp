#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.hpp"

#include <fmt/format.h>
#include <pcre2.h>

#include <nlohmann/json.hpp>

#include "attune/error.hpp"
#include "text/unicode.hpp"

namespace attune::text {
namespace {

/// What Ruby's syntax writes otherwise than PCRE2, or means otherwise: its \w is UTS #18's, its \s
/// White_Space (PCRE2's also holds U+180E), its
/// \h a hexadecimal digit, and a class may hold another, [^(\s|[.,])].
class Translation {
 public:
  explicit Translation(std::string_view expression) : from_(expression) {
    while (at_ < from_.size()) step();
  }
  std::string result;

 private:
  void step() {
    const char c = from_[at_];
    if (c == '\\' && at_ + 1 < from_.size()) {
      escape(from_[at_ + 1]);
      at_ += 2;
    } else if (c == '[') {
      open_class();
    } else if (c == ']' && depth_ > 0) {
      if (--depth_ == 0) result += c;
      ++at_;
    } else {
      if (depth_ > 0 && from_.substr(at_).starts_with("&&"))
        fail(
            "tokenizer.json: the pattern '{}' uses the intersection of classes (&&), which is not "
            "supported",
            from_);
      result += c;
      ++at_;
    }
  }

  void open_class() {
    const auto rest = from_.substr(at_);
    if (depth_ > 0 && rest.starts_with("[:")) {
      const auto end = from_.find(":]", at_);
      const auto size = end == std::string_view::npos ? rest.size() : end + 2 - at_;
      result += rest.substr(0, size);
      at_ += size;
      return;
    }
    if (depth_ > 0 && rest.starts_with("[^"))
      fail(
          "tokenizer.json: the pattern '{}' holds a negated class inside a class, which is not "
          "supported",
          from_);
    if (depth_++ == 0) result += '[';
    ++at_;
    if (depth_ == 1 && at_ < from_.size() && from_[at_] == '^') result += from_[at_++];
    // first in a class it is a character
    if (at_ < from_.size() && from_[at_] == ']') {
      result += "\\]";
      ++at_;
    }
  }

  void escape(char c) {
    static const std::string word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";
    static const std::string hexadecimal = "0-9A-Fa-f";
    const auto set = [&](const std::string& members) {
      result += depth_ > 0 ? members : "[" + members + "]";
    };
    const auto complement = [&](const std::string& members) {
      if (depth_ > 0)
        fail("tokenizer.json: the pattern '{}' holds \\{} inside a class, which is not supported",
             from_, c);
      result += "[^" + members + "]";
    };
    const bool outside = depth_ == 0;
    if (c == 's')
      result += "\\p{White_Space}";
    else if (c == 'S')
      result += "\\P{White_Space}";
    else if (c == 'w')
      set(word);
    else if (c == 'W')
      complement(word);
    else if (c == 'h')
      set(hexadecimal);
    else if (c == 'H')
      complement(hexadecimal);
    else if (c == 'b' && outside)
      result += fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", word);
    else if (c == 'B' && outside)
      result += fmt::format("(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))", word);
    else
      result.append({'\\', c});
  }

  std::string_view from_;
  std::size_t at_ = 0;
  int depth_ = 0;  // of classes
};

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
  const auto translated = Translation(expression).result;
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C /* it cuts characters */,
      &error, &offset, nullptr);
  if (!code)
    fail("tokenizer.json: the pattern '{}' does not compile: {} (at '{}')", expression_,
         message(error), translated.substr(offset));
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT pcre2_match interprets
}

void Pattern::find_all(std::string_view text, std::vector<Span>& matches) const {
  thread_local Workspace workspace;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(workspace.match);
  for (std::size_t at = 0; at < text.size();) {
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  PCRE2_NO_UTF_CHECK, workspace.match, workspace.context);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      fail("the pattern '{}' fails on a text of {} bytes at byte {}: {}", expression_, text.size(),
           at, message(found));
    if (bounds[1] > bounds[0]) {
      matches.push_back({bounds[0], bounds[1]});
      at = bounds[1];
    } else {
      at = bounds[1];
      if (at < text.size()) next_code_point(text, at);
    }
  }
}

namespace {

/// The expression that matches this text alone.
std::string escaped(std::string_view literal) {
  std::string result;
  for (const char c : literal) {
    if (std::string_view(R"(\^$.|?*+()[]{}-#&~ )").find(c) != std::string_view::npos)
      result += '\\';
    result += c;
  }
  return result;
}

}  // namespace

Pattern make_pattern(const nlohmann::json& json) {
  return Pattern(json.contains("Regex") ? json.at("Regex").get<std::string>()
                                        : escaped(json.at("String").get<std::string>()));
}

}  // namespace attune::text
