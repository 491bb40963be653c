// Every option is declared once: name, type, default, range, doc. Parsing, error messages, `attune
// describe` and the reference page all come from that one declaration.
//
//   struct Options {
//     std::int64_t rank = 8;
//     static void describe(attune::Schema<Options>& s) { s.key("rank", &Options::rank, "rank of the
//     update").range(1, 4096); }
//   };
#pragma once
#include <attune/api.hpp>

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
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

/// One declared option. The chained calls narrow what it accepts.
struct Option {
  std::string name;
  std::string doc;
  OptionValue fallback;  // default; its alternative is the option's type
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;             // low itself is not allowed
  std::vector<std::string> allowed;  // empty: any text
  // of an integer: texts that stand for a value, whatever the range
  std::map<std::string, std::int64_t> words;
  bool is_required = false;
  // a text: names a metric that the run must measure; empty: none
  bool is_metric = false;
  std::function<void(void*, const OptionValue&)> set;
  std::function<OptionValue(const void*)> get;

  Option& range(double from, double to) { return low = from, high = to, *this; }
  Option& at_least(double from) { return low = from, *this; }
  Option& above(double from) { return low = from, open_low = true, *this; }
  Option& choices(std::vector<std::string> names) { return allowed = std::move(names), *this; }
  Option& or_word(std::string word, std::int64_t value) {
    words.emplace(std::move(word), value);
    return *this;
  }
  Option& names_metric() { return is_metric = true, *this; }
  Option& required() { return is_required = true, *this; }
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
