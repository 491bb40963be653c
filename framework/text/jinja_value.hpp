// Values of Jinja templates, with Python's semantics as far as templates can observe.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace attune::jinja {

/// A Python exception during rendering, with its message.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Value;
using Values = std::vector<Value>;
using Dict = std::vector<std::pair<Value, Value>>;  // in insertion order

/// An undefined name or key: empty when printed or iterated, a Failure otherwise.
struct Undefined {
  std::string message;
};
struct None {};

struct Sequence {
  /// An iterator can be consumed once; a view is the result of dict.items().
  enum class Kind { list, tuple, iterator, view, range };
  Kind kind = Kind::list;
  Values items;
  std::size_t next = 0;  // position of an iterator
};

struct Arguments;
using Function = std::function<Value(const Arguments&)>;

/// A value with attributes: a namespace, or the "loop" variable of a loop.
struct Object {
  virtual ~Object() = default;
  virtual std::optional<Value> attribute(const std::string& name) const = 0;
};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, std::string,
                            std::shared_ptr<Sequence>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Object>, std::shared_ptr<const Function>>;

  Value() = default;
  template <class T>
    requires(std::is_constructible_v<Data, T> && !std::is_same_v<std::remove_cvref_t<T>, Value>)
  Value(T&& data) : data_(std::forward<T>(data)) {}
  Value(int number) : data_(static_cast<std::int64_t>(number)) {}
  Value(const char* text) : data_(std::string(text)) {}
  Value(std::string_view text) : data_(std::string(text)) {}
  static Value from_json(const nlohmann::ordered_json& json);
  static Value sequence(Sequence::Kind kind, Values items);
  static Value list(Values items) { return sequence(Sequence::Kind::list, std::move(items)); }
  static Value dict(Dict items);
  static Value function(Function function);
  /// Result of "|safe": texts concatenated with it by + are HTML-escaped.
  static Value safe(std::string text);

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <class T>
  const T& as() const {
    return std::get<T>(data_);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_safe() const { return safe_; }
  bool is_none() const { return is<None>(); }
  bool is_text() const { return is<std::string>(); }
  bool is_whole() const { return is<std::int64_t>() || is<bool>(); }
  bool is_number() const { return is_whole() || is<double>(); }
  const std::string& text() const { return as<std::string>(); }
  std::int64_t whole() const;  // Failure if it is not an integer
  double number() const { return is<double>() ? as<double>() : static_cast<double>(whole()); }
  const Sequence* sequence() const {
    return is<std::shared_ptr<Sequence>>() ? as<std::shared_ptr<Sequence>>().get() : nullptr;
  }
  bool is_sequence(Sequence::Kind kind) const { return sequence() && sequence()->kind == kind; }
  const Dict* dict() const {
    return is<std::shared_ptr<const Dict>>() ? as<std::shared_ptr<const Dict>>().get() : nullptr;
  }
  Object* object() const {
    return is<std::shared_ptr<Object>>() ? as<std::shared_ptr<Object>>().get() : nullptr;
  }
  const Function* function() const {
    return is<std::shared_ptr<const Function>>() ? as<std::shared_ptr<const Function>>().get()
                                                 : nullptr;
  }

  std::string type() const;  // Python's type name: "str"
  bool truth() const;
  std::string str() const;
  std::string repr() const;
  /// len(). Failure if the type has no length.
  std::int64_t length() const;
  /// The items that a loop visits; consumes an iterator.
  Values items() const;
  /// The first item, or an iterator's next item.
  std::optional<Value> first() const;
  const Value* find(const Value& key) const;  // in a dict
  bool contains(const Value& value) const;    // value in this

  bool operator==(const Value& other) const;
  /// Failure if Python cannot compare the two.
  bool operator<(const Value& other) const;

 private:
  Data data_;
  bool safe_ = false;
};

using Variables = std::vector<std::pair<std::string, Value>>;

struct Namespace final : Object {
  Variables attributes;
  std::optional<Value> attribute(const std::string& name) const override;
  void set(const std::string& name, Value value);
};

struct Arguments {
  Values positional;
  Variables named;
};

struct JsonStyle {
  bool ascii = false;
  bool sorted = false;
  std::optional<std::string> indent;
  std::string between = ", ";
  std::string after_key = ": ";
};
/// json.dumps. Failure if the value is not serialisable.
std::string dumps(const Value& value, const JsonStyle& style);

}  // namespace attune::jinja
