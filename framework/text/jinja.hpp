// Jinja, the language of chat templates, with the meaning that transformers' apply_chat_template
// gives it: its options, its tojson, its sandbox. What is not supported is an error: nothing is
// written otherwise than there.
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
  std::vector<Span> generated;  // what stands in {% generation %} blocks
};

/// Immutable: threads may share it.
class Template {
 public:
  /// Error that names the line when this is no template, or uses what is not supported.
  explicit Template(std::string_view source);

  /// Failure with Python's message, or the template's own where it calls raise_exception.
  Rendering render(const Variables& variables) const;
  bool marks_answers() const { return marks_answers_; }

  struct Program;

 private:
  std::shared_ptr<const Program> program_;
  bool marks_answers_;
};

}  // namespace attune::jinja
