// Option declarations. Each option is declared once with name, type, default, range and
// description. Parsing, error messages, `attune describe` and the reference page use this
// declaration.
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
/// In the order of the file.
using NumberMap = std::vector<std::pair<std::string, double>>;
using OptionValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>,
                                 std::vector<std::int64_t>, OptionMap, NumberMap>;

/// Name of the value's type: "boolean", "integer", "number", "text", "list of texts", "list of
/// integers", "table of texts" or "table of numbers".
std::string type_name(const OptionValue& value);
/// The value in TOML syntax.
std::string to_toml(const OptionValue& value);

/// Consequence of a changed option value for a resumed run and for cached data.
enum class OptionRole {
  /// The saved state is unusable with another value, because the option determines the trained
  /// parameters or their representation. Default for options of model and strategy plugins.
  identity,
  /// The state remains usable, but results change. Resume refuses a changed value unless the user
  /// allows it.
  setting,
  /// Paths, and how work is executed. Results do not depend on it.
  location,
};

/// The values of an enum option with their names in the file.
template <class E>
using Choices = std::vector<std::pair<std::string, E>>;
/// Name of a value; "" if it is not declared.
template <class E>
std::string name_of(E wanted, const Choices<E>& choices) {
  for (const auto& [text, value] : choices)
    if (value == wanted) return text;
  return "";
}

/// One declared option. The chained calls restrict the accepted values or set properties.
struct Option {
  std::string name;
  std::string doc;
  OptionValue fallback;  // default; its alternative determines the option's type
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;             // exclude low itself
  bool open_high = false;            // exclude high itself
  std::vector<std::string> allowed;  // empty: any text
  // words that stand for integers, regardless of the range
  std::map<std::string, std::int64_t> words;
  bool is_required = false;
  // the text must be the name of one of the run's metrics, or empty
  bool is_metric = false;
  // a path, or a list of paths
  bool is_path = false;
  // absent: the default role of the plugin kind or section
  std::optional<OptionRole> role = {};
  std::function<void(void*, const OptionValue&)> set;
  std::function<OptionValue(const void*)> get;

  /// Restricts the values to [from, to].
  Option& range(double from, double to) {
    low = from;
    high = to;
    return *this;
  }
  /// Restricts the values to [from, infinity).
  Option& at_least(double from) {
    low = from;
    return *this;
  }
  /// Restricts the values to (from, infinity).
  Option& above(double from) {
    low = from;
    open_low = true;
    return *this;
  }
  /// Restricts the values to (-infinity, to).
  Option& below(double to) {
    high = to;
    open_high = true;
    return *this;
  }
  /// Restricts a text to these names.
  Option& choices(std::vector<std::string> names) {
    allowed = std::move(names);
    return *this;
  }
  /// Accepts `word` as a name of `value`, which may be outside the range.
  Option& or_word(std::string word, std::int64_t value) {
    words.emplace(std::move(word), value);
    return *this;
  }
  /// Requires the name of one of the run's metrics, or an empty text.
  Option& names_metric() {
    is_metric = true;
    return *this;
  }
  /// Declares a text, or each text of a list, as a path. A relative path in the run file of a run
  /// directory refers to the folder where the run was started, wherever the file is read.
  Option& path() {
    is_path = true;
    return *this;
  }
  /// Sets the role, which otherwise depends on the plugin kind or section.
  Option& is(OptionRole which) {
    role = which;
    return *this;
  }
  /// Requires the option to be set.
  Option& required() {
    is_required = true;
    return *this;
  }
};

/// The value in TOML syntax; an integer with a word is written as that word.
std::string to_toml(const Option& option, const OptionValue& value);

/// The options of one struct, type-erased.
struct OptionSet {
  std::vector<Option> options;
};

template <class T>
class Schema : public OptionSet {
 public:
  /// Declares an option. M: bool, an integer, double, std::string, std::vector of std::string or
  /// std::int64_t, OptionMap or NumberMap. The default is the member's initial value.
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

  /// Declares an enum option with named values. The default is the member's initial value.
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

/// Options of plugins without options.
struct NoOptions {
  static void describe(Schema<NoOptions>&) {}
};

}  // namespace attune
ATTUNE_API_END
