#include "text/jinja_value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "text/python_text.hpp"

namespace attune::jinja {
namespace {

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> text, Args&&... args) {
  throw Failure(fmt::format(text, std::forward<Args>(args)...));
}

std::string joined_repr(const Values& items) {
  std::string text;
  for (const auto& item : items) text.append(text.empty() ? "" : ", ").append(item.repr());
  return text;
}

std::string repr_of(const Sequence& sequence) {
  const auto inner = joined_repr(sequence.items);
  switch (sequence.kind) {
    case Sequence::Kind::list: return "[" + inner + "]";
    case Sequence::Kind::tuple:
      return sequence.items.size() == 1 ? "(" + inner + ",)" : "(" + inner + ")";
    default: raise("writing an iterator out as it is makes no sense; put |list behind it");
  }
}

std::string repr_of(const Dict& dict) {
  std::string text;
  for (const auto& [key, value] : dict)
    text += (text.empty() ? "" : ", ") + key.repr() + ": " + value.repr();
  return "{" + text + "}";
}

bool same(const Dict& left, const Value& right_value) {
  const auto& right = *right_value.dict();
  return left.size() == right.size() &&
         std::all_of(left.begin(), left.end(), [&](const auto& item) {
           const auto* value = right_value.find(item.first);
           return value && *value == item.second;
         });
}

/// Writes JSON as json.dumps does.
class Dumper {
 public:
  explicit Dumper(const JsonStyle& style) : style_(style) {}

  std::string dump(const Value& value) {
    write(value, 0);
    return std::move(text_);
  }

 private:
  void write(const Value& value, std::size_t level) {
    if (value.is_none())
      text_ += "null";
    else if (value.is<bool>())
      text_ += value.as<bool>() ? "true" : "false";
    else if (value.is<double>())
      text_ += number(value.as<double>());
    else if (value.is_number())
      text_ += value.str();
    else if (value.is_text())
      text_ += python::json(value.text(), style_.ascii);
    else if (value.is_sequence(Sequence::Kind::list))
      write_list(value.sequence()->items, level);
    else if (value.is_sequence(Sequence::Kind::tuple))
      write_list(value.sequence()->items, level);
    else if (const auto* dict = value.dict())
      write_dict(*dict, level);
    else
      raise("Object of type {} is not JSON serializable", value.type());
  }

  void write_list(const Values& items, std::size_t level) {
    text_ += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      begin_item(i, level + 1);
      write(items[i], level + 1);
    }
    end(items.empty(), level, ']');
  }

  void write_dict(Dict dict, std::size_t level) {
    if (style_.sorted)
      std::stable_sort(dict.begin(), dict.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    text_ += '{';
    for (std::size_t i = 0; i < dict.size(); ++i) {
      begin_item(i, level + 1);
      text_ += key(dict[i].first) + style_.after_key;
      write(dict[i].second, level + 1);
    }
    end(dict.empty(), level, '}');
  }

  void begin_item(std::size_t index, std::size_t level) {
    if (index > 0) text_ += style_.between;
    new_line(level);
  }

  void end(bool empty, std::size_t level, char bracket) {
    if (!empty) new_line(level);
    text_ += bracket;
  }

  void new_line(std::size_t level) {
    if (!style_.indent) return;
    text_ += '\n';
    for (std::size_t i = 0; i < level; ++i) text_ += *style_.indent;
  }

  std::string key(const Value& key) const {
    if (key.is_text()) return python::json(key.text(), style_.ascii);
    if (key.is_none()) return "\"null\"";
    if (key.is<bool>()) return key.as<bool>() ? "\"true\"" : "\"false\"";
    if (key.is_number()) return '"' + key.str() + '"';
    raise("keys must be str, int, float, bool or None, not {}", key.type());
  }

  static std::string number(double number) {
    if (number != number) return "NaN";
    if (number > std::numeric_limits<double>::max()) return "Infinity";
    return number < std::numeric_limits<double>::lowest() ? "-Infinity" : python::repr(number);
  }

  const JsonStyle& style_;
  std::string text_;
};

}  // namespace

std::optional<Value> Namespace::attribute(const std::string& name) const {
  const auto found = std::find_if(attributes.begin(), attributes.end(),
                                  [&](const auto& one) { return one.first == name; });
  return found == attributes.end() ? std::nullopt : std::optional(found->second);
}

void Namespace::set(const std::string& name, Value value) {
  if (name.starts_with('_'))
    raise("Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'",
          name);
  const auto found = std::find_if(attributes.begin(), attributes.end(),
                                  [&](const auto& one) { return one.first == name; });
  if (found == attributes.end())
    attributes.emplace_back(name, std::move(value));
  else
    found->second = std::move(value);
}

Value Value::from_json(const nlohmann::ordered_json& json) {
  if (json.is_null()) return None{};
  if (json.is_boolean()) return json.get<bool>();
  constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > largest)
    raise("a whole number is too large");
  if (json.is_number_integer()) return json.get<std::int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    Values items;
    for (const auto& item : json) items.push_back(from_json(item));
    return list(std::move(items));
  }
  Dict items;
  for (const auto& [key, value] : json.items()) items.emplace_back(key, from_json(value));
  return dict(std::move(items));
}

Value Value::sequence(Sequence::Kind kind, Values items) {
  return std::make_shared<Sequence>(Sequence{kind, std::move(items)});
}
Value Value::dict(Dict items) {
  return std::shared_ptr<const Dict>(std::make_shared<Dict>(std::move(items)));
}
Value Value::function(Function function) {
  return std::shared_ptr<const Function>(std::make_shared<Function>(std::move(function)));
}

Value Value::safe(std::string text) {
  Value value(std::move(text));
  value.safe_ = true;
  return value;
}

std::int64_t Value::whole() const {
  if (!is_whole()) raise("'{}' object cannot be interpreted as an integer", type());
  return is<bool>() ? as<bool>() : as<std::int64_t>();
}

std::string Value::type() const {
  static const char* names[] = {"Undefined", "NoneType", "bool", "int",    "float",
                                "str",       "",         "dict", "object", "function"};
  if (!sequence()) return names[data_.index()];
  static const char* kinds[] = {"list", "tuple", "generator", "dict_items", "range"};
  return kinds[static_cast<std::size_t>(sequence()->kind)];
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (is_text()) return !text().empty();
  if (const auto* items = dict()) return !items->empty();
  return !sequence() || is_sequence(Sequence::Kind::iterator) || !sequence()->items.empty();
}

std::string Value::str() const {
  if (is_text()) return text();
  return is_undefined() ? "" : repr();
}

std::string Value::repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (is<bool>()) return as<bool>() ? "True" : "False";
  if (is_whole()) return std::to_string(whole());
  if (is<double>()) return python::repr(as<double>());
  if (is_text()) return python::repr(text());
  if (sequence()) return repr_of(*sequence());
  if (dict()) return repr_of(*dict());
  raise("a {} cannot be written out", type());
}

std::int64_t Value::length() const {
  if (is_undefined()) return 0;
  if (is_text()) return python::length(text());
  if (dict()) return std::ssize(*dict());
  if (sequence() && !is_sequence(Sequence::Kind::iterator)) return std::ssize(sequence()->items);
  raise("object of type '{}' has no len()", type());
}

Values Value::items() const {
  Values items;
  if (is_undefined()) return items;
  if (is_text()) {
    for (auto& c : python::characters(text())) items.emplace_back(std::move(c));
    return items;
  }
  if (const auto* pairs = dict()) {
    for (const auto& [key, value] : *pairs) items.push_back(key);
    return items;
  }
  if (!sequence()) raise("'{}' object is not iterable", type());
  if (!is_sequence(Sequence::Kind::iterator)) return sequence()->items;
  auto& iterator = *as<std::shared_ptr<Sequence>>();
  items.assign(iterator.items.begin() + static_cast<std::ptrdiff_t>(iterator.next),
               iterator.items.end());
  iterator.next = iterator.items.size();
  return items;
}

std::optional<Value> Value::first() const {
  if (is_sequence(Sequence::Kind::iterator)) {
    auto& iterator = *as<std::shared_ptr<Sequence>>();
    return iterator.next < iterator.items.size() ? std::optional(iterator.items[iterator.next++])
                                                 : std::nullopt;
  }
  auto all = items();
  return all.empty() ? std::nullopt : std::optional(std::move(all.front()));
}

const Value* Value::find(const Value& key) const {
  const auto found = std::find_if(dict()->begin(), dict()->end(),
                                  [&](const auto& item) { return item.first == key; });
  return found == dict()->end() ? nullptr : &found->second;
}

bool Value::contains(const Value& value) const {
  if (is_text()) {
    if (!value.is_text())
      raise("'in <string>' requires string as left operand, not {}", value.type());
    return text().find(value.text()) != std::string::npos;
  }
  if (dict()) return find(value) != nullptr;
  if (is_sequence(Sequence::Kind::iterator)) {
    for (auto one = first(); one; one = first())
      if (*one == value) return true;
    return false;
  }
  if (!is_undefined() && !sequence()) raise("argument of type '{}' is not iterable", type());
  const auto all = items();
  return std::find(all.begin(), all.end(), value) != all.end();
}

bool Value::operator==(const Value& other) const {
  if (is_number() && other.is_number())
    return is_whole() && other.is_whole() ? whole() == other.whole() : number() == other.number();
  if (data_.index() != other.data_.index()) return false;
  if (is_undefined() || is_none()) return true;
  if (is_text()) return text() == other.text();
  if (const auto *left = sequence(), *right = other.sequence(); left) {
    const bool comparable = left->kind == right->kind && left->kind != Sequence::Kind::iterator;
    return left == right || (comparable && left->items == right->items);
  }
  if (dict()) return same(*dict(), other);
  return object() == other.object() && function() == other.function();
}

bool Value::operator<(const Value& other) const {
  if (is_number() && other.is_number())
    return is_whole() && other.is_whole() ? whole() < other.whole() : number() < other.number();
  if (is_text() && other.is_text()) return text() < other.text();
  const auto* left = sequence();
  const auto* right = other.sequence();
  if (left && right && left->kind == right->kind &&
      (left->kind == Sequence::Kind::list || left->kind == Sequence::Kind::tuple))
    return std::lexicographical_compare(left->items.begin(), left->items.end(),
                                        right->items.begin(), right->items.end());
  raise("'<' not supported between instances of '{}' and '{}'", type(), other.type());
}

std::string dumps(const Value& value, const JsonStyle& style) { return Dumper(style).dump(value); }

}  // namespace attune::jinja
