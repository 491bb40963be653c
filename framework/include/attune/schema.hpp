// Every option is declared once: name, type, default, range, doc. Parsing, error messages, `attune
// describe` and the reference page all come from that one declaration.
//
//   struct Options {
//     std::int64_t rank = 8;
//     Init init = Init::zeros;  // an enum
//     static void describe(attune::Schema<Options>& s) {
//       s.key("rank", &Options::rank, "rank of the update").range(1, 4096);
//       s.key("init", &Options::init, "initial values", {{"zeros", Init::zeros}, ...});
//     }
//   };
#pragma once
#include <attune/api.hpp>

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

using OptionMap = std::map<std::string, std::string>;
/// In the order in which the file has them.
using NumberMap = std::vector<std::pair<std::string, double>>;
using OptionValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>,
                                 std::vector<std::int64_t>, OptionMap, NumberMap>;

/// "boolean", "integer", "number", "text", "list of texts", "list of integers", "table of texts",
/// "table of numbers".
std::string type_name(const OptionValue& value);
/// As it would stand in a TOML file.
std::string to_toml(const OptionValue& value);

/// What another value of an option means for a run that goes on, and for what is cached.
enum class OptionRole {
  /// The saved state means nothing with another value: what is trained, and how it is held. The
  /// options of model and strategy plugins are of this kind unless they say otherwise.
  identity,
  /// The state means the same, and the run is another one: refused on resume unless it is wanted.
  setting,
  /// Where files are, and how work is carried out. No result depends on it.
  location,
};

/// The values of an option that is one of several, by their names in a file.
template <class E>
using Choices = std::vector<std::pair<std::string, E>>;
/// "" for a value that was not declared.
template <class E>
std::string name_of(E wanted, const Choices<E>& choices) {
  for (const auto& [text, value] : choices)
    if (value == wanted) return text;
  return "";
}

/// One declared option. The chained calls narrow what it accepts.
struct Option {
  std::string name;
  std::string doc;
  OptionValue fallback;  // default; its alternative is the option's type
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;             // low itself is not allowed
  bool open_high = false;            // high itself is not allowed
  std::vector<std::string> allowed;  // empty: any text
  // of an integer: texts that stand for a value, whatever the range
  std::map<std::string, std::int64_t> words;
  bool is_required = false;
  // a text: names a metric that the run must measure; empty: none
  bool is_metric = false;
  // absent: what the options of such a plugin or section are
  std::optional<OptionRole> role = {};
  std::function<void(void*, const OptionValue&)> set;
  std::function<OptionValue(const void*)> get;

  Option& range(double from, double to) {
    low = from;
    high = to;
    return *this;
  }
  Option& at_least(double from) {
    low = from;
    return *this;
  }
  Option& above(double from) {
    low = from;
    open_low = true;
    return *this;
  }
  Option& below(double to) {
    high = to;
    open_high = true;
    return *this;
  }
  Option& choices(std::vector<std::string> names) {
    allowed = std::move(names);
    return *this;
  }
  Option& or_word(std::string word, std::int64_t value) {
    words.emplace(std::move(word), value);
    return *this;
  }
  Option& names_metric() {
    is_metric = true;
    return *this;
  }
  Option& is(OptionRole which) {
    role = which;
    return *this;
  }
  Option& required() {
    is_required = true;
    return *this;
  }
};

/// The option's value as it would stand in a TOML file: a word where one stands for it.
std::string to_toml(const Option& option, const OptionValue& value);

/// The options of one struct, without its type.
struct OptionSet {
  std::vector<Option> options;
};

template <class T>
class Schema : public OptionSet {
 public:
  /// M: bool, an integer, double, std::string, std::vector of std::string or std::int64_t,
  /// OptionMap or NumberMap. The default is the member's own.
  template <class M>
  Option& key(std::string name, M T::* member, std::string doc) {
    using Stored = std::conditional_t<
        std::is_same_v<M, bool>, bool,
        std::conditional_t<std::is_integral_v<M>, std::int64_t,
                           std::conditional_t<std::is_floating_point_v<M>, double, M>>>;
    Option option;
    option.name = std::move(name);
    option.doc = std::move(doc);
    option.fallback = Stored(T{}.*member);
    option.set = [member](void* object, const OptionValue& value) {
      static_cast<T*>(object)->*member = M(std::get<Stored>(value));
    };
    option.get = [member](const void* object) {
      return OptionValue(Stored(static_cast<const T*>(object)->*member));
    };
    options.push_back(std::move(option));
    return options.back();
  }

  /// One of several names, each of which is a value of an enum. The default is the member's own.
  template <class E>
    requires std::is_enum_v<E>
  Option& key(std::string name, E T::* member, std::string doc,
              const std::type_identity_t<Choices<E>>& choices) {
    Option option;
    option.name = std::move(name);
    option.doc = std::move(doc);
    option.fallback = name_of(T{}.*member, choices);
    for (const auto& choice : choices) option.allowed.push_back(choice.first);
    option.set = [member, choices](void* object, const OptionValue& value) {
      for (const auto& [text, wanted] : choices)
        if (text == std::get<std::string>(value)) static_cast<T*>(object)->*member = wanted;
    };
    option.get = [member, choices](const void* object) {
      return OptionValue(name_of(static_cast<const T*>(object)->*member, choices));
    };
    options.push_back(std::move(option));
    return options.back();
  }
};

template <class T>
OptionSet describe() {
  Schema<T> schema;
  T::describe(schema);
  return schema;
}

/// For plugins without options.
struct NoOptions {
  static void describe(Schema<NoOptions>&) {}
};

}  // namespace attune
ATTUNE_API_END
