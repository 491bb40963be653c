// Jinja for chat templates, compatible with transformers' apply_chat_template: its options, tojson
// and sandbox. Unsupported features are errors, so the output never differs silently.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attune/tokenizer.hpp"
#include "text/jinja_value.hpp"

namespace attune::jinja {

struct Rendering {
  std::string text;
  std::vector<Span> generated;  // contents of {% generation %} blocks
};

/// Immutable and thread-safe.
class Template {
 public:
  /// Error that names the line for a syntax error or an unsupported feature.
  explicit Template(std::string_view source);

  /// Throws Failure with Python's message, or the template's own for raise_exception.
  Rendering render(const Variables& variables) const;
  bool marks_answers() const { return marks_answers_; }

  struct Program;

 private:
  std::shared_ptr<const Program> program_;
  bool marks_answers_;
};

}  // namespace attune::jinja
