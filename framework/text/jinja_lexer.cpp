#include "text/jinja_lexer.hpp"

#include <algorithm>
#include <array>

#include "attune/error.hpp"
#include "text/python_text.hpp"
#include "text/unicode.hpp"

namespace attune::jinja {
namespace {

using Type = Token::Type;

/// Line ends as "\n", and none at the end.
std::string normalized(std::string_view source) {
  std::string text;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r')
      text += source[i];
    else if (i + 1 == source.size() || source[i + 1] != '\n')
      text += '\n';
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool begins_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name(char c) { return begins_name(c) || is_digit(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(text::valid_utf8(source))) {}

  std::vector<Token> tokens() {
    while (at_ < source_.size()) {
      const auto opening = next_opening();
      put_text(opening);
      if (opening == source_.size()) break;
      at_ = opening;
      if (is("{#"))
        skip_comment();
      else if (const auto raw = after_raw_tag("raw", opening); is("{%") && raw != npos)
        put_raw(raw);
      else
        put_code();
    }
    put(Type::end, "");
    return std::move(tokens_);
  }

 private:
  static constexpr auto npos = std::string::npos;

  template <class... Args>
  [[noreturn]] void wrong(fmt::format_string<Args...> text, Args&&... args) const {
    fail("the chat template, line {}: {}", line(at_),
         fmt::format(text, std::forward<Args>(args)...));
  }

  std::int64_t line(std::size_t at) const {
    const auto end = source_.begin() + static_cast<std::ptrdiff_t>(std::min(at, source_.size()));
    return 1 + std::count(source_.begin(), end, '\n');
  }
  bool is(std::string_view text) const {
    return std::string_view(source_).substr(at_).starts_with(text);
  }
  char sign_at(std::size_t at) const { return at < source_.size() ? source_[at] : '\0'; }
  void put(Type type, std::string text) { tokens_.push_back({type, std::move(text), line(at_)}); }

  std::size_t next_opening() const {
    for (auto at = source_.find('{', at_); at != npos; at = source_.find('{', at + 1))
      if (const char next = sign_at(at + 1); next == '{' || next == '%' || next == '#') return at;
    return source_.size();
  }

  /// The text up to a tag, without the white space that the tag takes away on its left.
  void put_text(std::size_t end) {
    auto text = std::string_view(source_).substr(at_, end - at_);
    const char sign = sign_at(end + 2);
    const char kind = sign_at(end + 1);
    if (end < source_.size() && sign == '-')
      text = python::stripped(text, python::Ends::right);
    else if (end < source_.size() && sign != '+' && kind != '{')
      text = without_indent(text);
    if (!text.empty()) put(Type::text, std::string(text));
  }

  std::string_view without_indent(std::string_view text) const {
    const auto begin = text.rfind('\n') + 1;  // 0: no line begins here
    if (begin == 0 && !line_begins_) return text;
    return python::stripped(text.substr(begin), python::Ends::left).empty() ? text.substr(0, begin)
                                                                            : text;
  }

  /// Past the end of a tag and what it takes away on its right: all white space after "-", one line
  /// end unless there is "+".
  void close(std::size_t end, char sign, bool trims) {
    at_ = end;
    const auto begin = at_;
    if (sign == '-')
      at_ = source_.size() -
            python::stripped(std::string_view(source_).substr(at_), python::Ends::left).size();
    else if (trims && sign != '+' && sign_at(at_) == '\n')
      ++at_;
    line_begins_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void skip_comment() {
    const auto end = source_.find("#}", at_ + 2);
    if (end == npos) wrong("a comment is not closed by \"#}}\"");
    close(end + 2, end > at_ + 3 ? source_[end - 1] : '\0', true);
  }

  /// Behind a tag "{% name %}" that begins at `at`; npos: there is another.
  std::size_t after_raw_tag(std::string_view name, std::size_t at) const {
    at += 2;
    if (sign_at(at) == '-' || sign_at(at) == '+') ++at;
    at = source_.find_first_not_of(" \t\n", at);
    if (at == npos || source_.compare(at, name.size(), name) != 0) return npos;
    at = source_.find_first_not_of(" \t\n", at + name.size());
    if (at != npos && (source_[at] == '-' || source_[at] == '+')) ++at;
    return at != npos && source_.compare(at, 2, "%}") == 0 ? at + 2 : npos;
  }

  void put_raw(std::size_t begin) {
    close(begin, source_[begin - 3], false);
    for (auto end = source_.find("{%", at_); end != npos; end = source_.find("{%", end + 1)) {
      const auto after = after_raw_tag("endraw", end);
      if (after == npos) continue;
      put_text(end);
      return close(after, source_[after - 3], true);
    }
    wrong("a raw block is not closed by {{% endraw %}}");
  }

  void put_code() {
    const bool expression = is("{{");
    const std::string closing = expression ? "}}" : "%}";
    put(expression ? Type::open_expression : Type::open_tag, "");
    at_ += 2;
    if (sign_at(at_) == '-' || sign_at(at_) == '+') ++at_;
    std::string brackets;
    for (;;) {
      at_ = source_.size() -
            python::stripped(std::string_view(source_).substr(at_), python::Ends::left).size();
      if (at_ >= source_.size()) wrong("it ends inside a tag");
      const bool minus = is("-" + closing);
      const bool plus = !expression && is("+" + closing);
      if (brackets.empty() && (minus || plus || is(closing))) {
        put(expression ? Type::close_expression : Type::close_tag, "");
        return close(at_ + 2 + (minus || plus), minus ? '-' : plus ? '+' : '\0', !expression);
      }
      put_token(brackets);
    }
  }

  void put_token(std::string& brackets) {
    const char c = source_[at_];
    if (is_digit(c)) return put_number();
    if (begins_name(c)) return put_name();
    if (c == '\'' || c == '"') return put_string(c);
    static constexpr std::array signs = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "*",
                                         "/",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                         ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto sign =
        std::find_if(signs.begin(), signs.end(), [&](const char* one) { return is(one); });
    if (sign == signs.end()) wrong("there is an unexpected \"{}\"", c);
    balance(brackets, **sign);
    put(Type::sign, *sign);
    at_ += std::string_view(*sign).size();
  }

  void balance(std::string& brackets, char c) const {
    static constexpr std::string_view opening = "([{";
    static constexpr std::string_view closing = ")]}";
    if (const auto kind = opening.find(c); kind != npos) brackets += closing[kind];
    if (closing.find(c) == npos) return;
    if (brackets.empty() || brackets.back() != c) wrong("there is an unexpected \"{}\"", c);
    brackets.pop_back();
  }

  void put_name() {
    auto end = at_;
    while (end < source_.size() && is_name(source_[end])) ++end;
    put(Type::name, source_.substr(at_, end - at_));
    at_ = end;
  }

  void put_number() {
    auto end = at_;
    const auto digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) ++end;
    };
    digits();
    const auto whole = end;
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (!after_dot && sign_at(end) == '.' && is_digit(sign_at(end + 1))) {
      ++end;
      digits();
    }
    const auto sign = sign_at(end + 1) == '+' || sign_at(end + 1) == '-' ? 1u : 0u;
    if (!after_dot && (sign_at(end) == 'e' || sign_at(end) == 'E') &&
        is_digit(sign_at(end + 1 + sign))) {
      end += 1 + sign;
      digits();
    }
    if (is_name(sign_at(end))) wrong("\"{}\" is not a number", source_.substr(at_, end + 1 - at_));
    auto text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    put(end == whole ? Type::whole : Type::number, std::move(text));
    at_ = end;
  }

  void put_string(char quote) {
    const auto begin = at_;
    std::string text;
    for (++at_; sign_at(at_) != quote || at_ >= source_.size();) {
      if (at_ >= source_.size()) {
        at_ = begin;
        wrong("a string is not closed");
      }
      if (source_[at_] == '\\')
        put_escape(text);
      else
        text += source_[at_++];
    }
    ++at_;
    tokens_.push_back({Type::string, std::move(text), line(begin)});
  }

  /// As Python reads it: what means nothing keeps its backslash.
  void put_escape(std::string& text) {
    static constexpr std::string_view names = "\\'\"abfnrtv\n";
    static constexpr std::string_view meanings = "\\'\"\a\b\f\n\r\t\v";
    const char c = sign_at(++at_);
    if (const auto meaning = names.find(c); c != '\0' && meaning != npos) {
      if (c != '\n') text += meanings[meaning];
      ++at_;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      put_code_point(text, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (is_digit(c) || c == 'N' || (c & 0x80)) {
      wrong(
          "a string contains the escape \"\\{}\", which is not supported; write the character "
          "itself",
          c & 0x80 ? '?' : c);
    } else {
      text += '\\';
    }
  }

  void put_code_point(std::string& text, std::size_t digits) {
    const auto number = source_.substr(std::min(at_ + 1, source_.size()), digits);
    const bool sound =
        number.size() == digits && number.find_first_not_of("0123456789abcdefABCDEF") == npos;
    const auto code = sound ? std::stoul(number, nullptr, 16) : 0x110000ul;
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      wrong("a string contains an escape that is not a character");
    text::append(text, static_cast<char32_t>(code));
    at_ += 1 + digits;
  }

  std::string source_;
  std::size_t at_ = 0;
  bool line_begins_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view source) { return Lexer(source).tokens(); }

}  // namespace attune::jinja
