#include "text/aligned.hpp"

#include "text/unicode.hpp"

namespace attune::text {

AlignedText AlignedText::slice(std::size_t begin, std::size_t end) const {
  const auto bytes = std::string_view(bytes_).substr(begin, end - begin);
  return aligned_ ? AlignedText(bytes, {origins_.begin() + begin, origins_.begin() + end})
                  : AlignedText(bytes);
}

Rewriting::Rewriting(AlignedText& text) : text_(text) {
  const std::size_t size = text.bytes_.size() + text.bytes_.size() / 4;
  result_.bytes_.reserve(size);
  result_.aligned_ = text.aligned_;
  if (text.aligned_) result_.origins_.reserve(size);
}

void Rewriting::keep(std::size_t begin, std::size_t end) {
  result_.bytes_.append(text_.bytes_, begin, end - begin);
  if (text_.aligned_)
    result_.origins_.insert(result_.origins_.end(), text_.origins_.begin() + begin,
                            text_.origins_.begin() + end);
}

/// One by one: there are one or two of them, and vector::insert is made for many.
void Rewriting::add_origins(std::size_t count, std::size_t from) {
  if (!text_.aligned_) return;
  for (; count > 0; --count) result_.origins_.push_back(text_.origins_[from]);
}

void Rewriting::put(std::string_view bytes, std::size_t from) {
  result_.bytes_ += bytes;
  add_origins(bytes.size(), from);
}

void Rewriting::put(char32_t c, std::size_t from) {
  const std::size_t before = result_.bytes_.size();
  append(result_.bytes_, c);
  add_origins(result_.bytes_.size() - before, from);
}

void transform(AlignedText& text, const std::vector<Change>& changes) {
  Rewriting result(text);
  const auto& old = text.bytes();
  std::size_t at = 0;
  for (const auto& [c, change] : changes) {
    // What is put in before anything was there has no origin of its own: it shares that of the
    // first byte.
    result.put(c, change > 0 && at > 0 ? at - 1 : std::min(at, old.size() - 1));
    for (int taken = change; taken <= 0 && at < old.size(); ++taken) next_code_point(old, at);
  }
  result.finish();
}

}  // namespace attune::text
