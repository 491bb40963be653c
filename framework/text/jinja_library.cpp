#include "text/jinja_library.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <map>

#include "text/python_text.hpp"

namespace attune::jinja {
namespace {

using Kind = Sequence::Kind;

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> text, Args&&... args) {
  throw Failure(fmt::format(text, std::forward<Args>(args)...));
}

/// Arguments of one call, taken by place or by name; finish() finds what was not taken.
class Taker {
 public:
  Taker(std::string callee, const Arguments& arguments)
      : callee_(std::move(callee)), arguments_(arguments) {}

  const Value* optional(const char* name) {
    const auto place = taken_++;
    if (place < arguments_.positional.size()) return &arguments_.positional[place];
    const auto found = std::find_if(arguments_.named.begin(), arguments_.named.end(),
                                    [&](const auto& one) { return one.first == name; });
    if (found == arguments_.named.end()) return nullptr;
    ++named_;
    return &found->second;
  }
  const Value& needed(const char* name) {
    const auto* value = optional(name);
    if (!value) raise("{}() misses its argument '{}'", callee_, name);
    return *value;
  }
  bool flag(const char* name) {
    const auto* value = optional(name);
    return value && value->truth();
  }
  std::int64_t whole(const char* name, std::int64_t otherwise) {
    const auto* value = optional(name);
    if (!value || value->is_none()) return otherwise;
    if (!value->is_whole())
      raise("{}(): '{}' must be an integer, not {}", callee_, name, value->type());
    return value->whole();
  }
  const std::string& text(const char* name) {
    const auto& value = needed(name);
    if (!value.is_text()) raise("{}(): '{}' must be str, not {}", callee_, name, value.type());
    return value.text();
  }
  /// Null: None, or not given.
  const std::string* optional_text(const char* name) {
    const auto* value = optional(name);
    if (!value || value->is_none()) return nullptr;
    if (!value->is_text()) raise("{}(): '{}' must be str, not {}", callee_, name, value->type());
    return &value->text();
  }
  void finish() const {
    const bool more = arguments_.positional.size() > taken_ || arguments_.named.size() > named_;
    if (more) raise("{}() got arguments that it does not take", callee_);
  }

 private:
  std::string callee_;
  const Arguments& arguments_;
  std::size_t taken_ = 0;
  std::size_t named_ = 0;
};

/// What would have to keep the mark of "|safe" is not supported.
const std::string& plain(const Value& value) {
  if (value.is_safe()) raise("a text marked by |safe can only be written and joined");
  return value.text();
}

std::string plain_str(const Value& value) { return value.is_text() ? plain(value) : value.str(); }

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    static constexpr std::string_view signs = "&<>'\"";
    static constexpr std::array names = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    const auto sign = signs.find(c);
    if (sign == std::string_view::npos)
      result += c;
    else
      result += names[sign];
  }
  return result;
}

std::string html(const Value& value) {
  return value.is_safe() ? value.text() : escaped(value.str());
}

Value texts(python::Texts parts) {
  Values items;
  for (auto& part : parts) items.emplace_back(std::move(part));
  return Value::list(std::move(items));
}

Value iterator(Values items) { return Value::sequence(Kind::iterator, std::move(items)); }

// Methods of texts

using TextMethod = Value (*)(const std::string& text, Taker& take);

template <python::Ends ends>
Value strip(const std::string& text, Taker& take) {
  const auto* characters = take.optional_text("chars");
  return characters ? python::stripped(text, *characters, ends) : python::stripped(text, ends);
}

Value split(const std::string& text, Taker& take) {
  const auto* separator = take.optional_text("sep");
  const auto limit = take.whole("maxsplit", -1);
  if (!separator) return texts(python::split(text, limit));
  if (separator->empty()) raise("empty separator");
  return texts(python::split(text, *separator, limit));
}

Value split_from_right(const std::string& text, Taker& take) {
  const auto* separator = take.optional_text("sep");
  const auto limit = take.whole("maxsplit", -1);
  if (!separator && limit >= 0) raise("rsplit() with a limit but no separator is not supported");
  if (!separator) return texts(python::split(text, limit));
  if (separator->empty()) raise("empty separator");
  return texts(python::split_from_right(text, *separator, limit));
}

template <bool last>
Value partition(const std::string& text, Taker& take) {
  const auto& separator = take.text("sep");
  if (separator.empty()) raise("empty separator");
  const auto at = last ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos)
    return Value::sequence(Kind::tuple, last ? Values{"", "", text} : Values{text, "", ""});
  return Value::sequence(Kind::tuple,
                         {text.substr(0, at), separator, text.substr(at + separator.size())});
}

template <bool at_end>
Value has_affix(const std::string& text, Taker& take) {
  const auto& wanted = take.needed("prefix");
  const auto fits = [&](const Value& affix) {
    if (!affix.is_text())
      raise("{} first arg must be str or a tuple of str, not {}",
            at_end ? "endswith" : "startswith", affix.type());
    return at_end ? text.ends_with(affix.text()) : text.starts_with(affix.text());
  };
  if (!wanted.is_sequence(Kind::tuple)) return fits(wanted);
  const auto& affixes = wanted.sequence()->items;
  return std::any_of(affixes.begin(), affixes.end(), fits);
}

template <bool last, bool must>
Value find(const std::string& text, Taker& take) {
  const auto& wanted = take.text("sub");
  const auto at = last ? text.rfind(wanted) : text.find(wanted);
  if (at == std::string::npos && must) raise("substring not found");
  return at == std::string::npos ? std::int64_t{-1}
                                 : python::length(std::string_view(text).substr(0, at));
}

Value replace(const std::string& text, Taker& take) {
  const auto& from = take.text("old");
  const auto& to = take.text("new");
  return python::replaced(text, from, to, take.whole("count", -1));
}

Value join(const std::string& text, Taker& take) {
  std::string joined;
  bool first = true;
  for (const auto& item : take.needed("iterable").items()) {
    if (!item.is_text()) raise("sequence item: expected str instance, {} found", item.type());
    joined.append(std::exchange(first, false) ? "" : text).append(item.text());
  }
  return joined;
}

Value count(const std::string& text, Taker& take) {
  const auto& wanted = take.text("sub");
  if (wanted.empty()) return python::length(text) + 1;
  return std::ssize(python::split(text, wanted, -1)) - 1;
}

template <bool at_end>
Value without_affix(const std::string& text, Taker& take) {
  const auto& affix = take.text("affix");
  if (!(at_end ? text.ends_with(affix) : text.starts_with(affix))) return text;
  return at_end ? text.substr(0, text.size() - affix.size()) : text.substr(affix.size());
}

template <bool (*all)(char32_t)>
Value consists_of(const std::string& text, Taker&) {
  const auto characters = python::characters(text);
  return !text.empty() &&
         std::all_of(characters.begin(), characters.end(), [](const std::string& c) {
           if (c.size() > 1 && all != python::is_space)
             raise("isdigit() and its like are supported for ASCII alone");
           return all(c.size() > 1 ? (python::stripped(c).empty() ? U'\u3000' : U'a')
                                   : static_cast<unsigned char>(c[0]));
         });
}

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_letter_or_digit(char32_t c) { return is_digit(c) || is_letter(c); }

template <std::string (*change)(std::string_view)>
Value changed(const std::string& text, Taker&) {
  return change(text);
}

const std::map<std::string, TextMethod>& text_methods() {
  using python::Ends;
  static const std::map<std::string, TextMethod> methods = {
      {"strip", strip<Ends::both>},
      {"lstrip", strip<Ends::left>},
      {"rstrip", strip<Ends::right>},
      {"split", split},
      {"rsplit", split_from_right},
      {"splitlines", [](const std::string& text, Taker&) { return texts(python::lines(text)); }},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"startswith", has_affix<false>},
      {"endswith", has_affix<true>},
      {"removeprefix", without_affix<false>},
      {"removesuffix", without_affix<true>},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"replace", replace},
      {"join", join},
      {"count", count},
      {"upper", changed<python::upper>},
      {"lower", changed<python::lower>},
      {"title", changed<python::titled>},
      {"capitalize", changed<python::capitalized>},
      {"isupper", [](const std::string& text, Taker&) { return Value(python::is_upper(text)); }},
      {"islower", [](const std::string& text, Taker&) { return Value(python::is_lower(text)); }},
      {"isdigit", consists_of<is_digit>},
      {"isalpha", consists_of<is_letter>},
      {"isalnum", consists_of<is_letter_or_digit>},
      {"isspace", consists_of<python::is_space>},
  };
  return methods;
}

/// "{}", "{0}", "{name}" and doubled braces.
Value format(const std::string& text, const Arguments& arguments) {
  std::string result;
  std::size_t next = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      result += c;
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == c) {
      result += text[i++];
      continue;
    }
    const auto end = text.find('}', i);
    if (c == '}' || end == std::string::npos) raise("Single '{}' encountered in format string", c);
    const auto name = text.substr(i + 1, end - i - 1);
    if (name.find_first_of(":!.[") != std::string::npos)
      raise("format() with '{{{}}}' is not supported", name);
    const bool numbered = name.find_first_not_of("0123456789") == std::string::npos;
    if (numbered) {
      const auto place = name.empty() ? next++ : std::stoul(name);
      if (place >= arguments.positional.size())
        raise("Replacement index {} out of range for positional args tuple", place);
      result += arguments.positional[place].str();
    } else {
      const auto& named = arguments.named;
      const auto found = std::find_if(named.begin(), named.end(),
                                      [&](const auto& one) { return one.first == name; });
      if (found == named.end()) raise("format() misses '{}'", name);
      result += found->second.str();
    }
    i = end;
  }
  return result;
}

/// text % values, for %s, %d, %i, %r and %%.
Value percent(const std::string& text, const Value& values) {
  const auto given = values.is_sequence(Kind::tuple) ? values.sequence()->items : Values{values};
  std::string result;
  std::size_t next = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    const char kind = ++i < text.size() ? text[i] : '\0';
    if (kind == '%') {
      result += '%';
      continue;
    }
    if (kind != 's' && kind != 'd' && kind != 'i' && kind != 'r')
      raise("of % formats, %s, %d, %i, %r and %% are supported alone");
    if (next >= given.size()) raise("not enough arguments for format string");
    const auto& value = given[next++];
    if ((kind == 'd' || kind == 'i') && !value.is_whole())
      raise("%d format: a real number is required, not {}", value.type());
    result += kind == 's'   ? value.str()
              : kind == 'r' ? value.repr()
                            : std::to_string(value.whole());
  }
  if (next < given.size()) raise("not all arguments converted during string formatting");
  return result;
}

std::optional<Value> text_method(const std::string& text, const std::string& name) {
  if (name == "format")
    return Value::function([text](const Arguments& arguments) { return format(text, arguments); });
  const auto found = text_methods().find(name);
  if (found == text_methods().end()) return std::nullopt;
  return Value::function([text, name, method = found->second](const Arguments& arguments) {
    Taker take(name, arguments);
    auto result = method(text, take);
    take.finish();
    return result;
  });
}

// Methods of lists and dicts

Values pairs(const Dict& dict) {
  Values items;
  for (const auto& [key, value] : dict) items.push_back(Value::sequence(Kind::tuple, {key, value}));
  return items;
}

Values values_of(const Dict& dict) {
  Values values;
  for (const auto& [key, value] : dict) values.push_back(value);
  return values;
}

Value get(const Value& dict, Taker take) {
  const auto& key = take.needed("key");
  const auto* otherwise = take.optional("default");
  take.finish();
  if (const auto* found = dict.find(key)) return *found;
  return otherwise ? *otherwise : Value(None{});
}

/// The sandbox forbids whatever would change a value.
Undefined forbidden(const Value& value, const std::string& name) {
  return {fmt::format("access to attribute '{}' of '{}' object is unsafe", name, value.type())};
}

std::optional<Value> dict_method(const Value& dict, const std::string& name) {
  static constexpr std::array unsafe = {"clear", "pop", "popitem", "setdefault", "update"};
  if (std::find(unsafe.begin(), unsafe.end(), name) != unsafe.end()) return forbidden(dict, name);
  if (name == "get")
    return Value::function(
        [dict](const Arguments& arguments) { return get(dict, {"get", arguments}); });
  if (name == "copy") return Value::function([dict](const Arguments&) { return dict; });
  if (name == "keys")
    return Value::function(
        [dict](const Arguments&) { return Value::sequence(Kind::view, dict.items()); });
  if (name == "items")
    return Value::function(
        [dict](const Arguments&) { return Value::sequence(Kind::view, pairs(*dict.dict())); });
  if (name == "values")
    return Value::function(
        [dict](const Arguments&) { return Value::sequence(Kind::view, values_of(*dict.dict())); });
  return std::nullopt;
}

std::optional<Value> list_method(const Value& list, const std::string& name) {
  static constexpr std::array unsafe = {"append", "clear",  "extend",  "insert",
                                        "pop",    "remove", "reverse", "sort"};
  const bool changeable = list.is_sequence(Kind::list);
  if (changeable && std::find(unsafe.begin(), unsafe.end(), name) != unsafe.end())
    return forbidden(list, name);
  if (changeable && name == "copy")
    return Value::function([list](const Arguments&) { return Value::list(list.items()); });
  if (name == "count" && !list.is_sequence(Kind::iterator))
    return Value::function([list](const Arguments& arguments) {
      const auto items = list.items();
      return Value(static_cast<std::int64_t>(
          std::count(items.begin(), items.end(), Taker("count", arguments).needed("value"))));
    });
  if (name == "index" && !list.is_sequence(Kind::iterator))
    return Value::function([list](const Arguments& arguments) {
      const auto items = list.items();
      const auto found =
          std::find(items.begin(), items.end(), Taker("index", arguments).needed("value"));
      if (found == items.end()) raise("the value is not in the list");
      return Value(static_cast<std::int64_t>(found - items.begin()));
    });
  return std::nullopt;
}

/// What getattr() finds.
std::optional<Value> own_attribute(const Value& value, const std::string& name) {
  if (value.is_text()) return text_method(plain(value), name);
  if (value.dict()) return dict_method(value, name);
  if (value.sequence()) return list_method(value, name);
  return value.object() ? value.object()->attribute(name) : std::nullopt;
}

/// What value[key] finds.
std::optional<Value> own_item(const Value& value, const Value& key) {
  if (value.dict()) {
    const auto* found = value.find(key);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (value.is_text()) plain(value);
  const bool indexed = value.is_text() || value.is_sequence(Kind::list) ||
                       value.is_sequence(Kind::tuple) || value.is_sequence(Kind::range);
  if (!indexed || !key.is_whole()) return std::nullopt;
  const auto items = value.items();
  const auto place = key.whole() < 0 ? key.whole() + std::ssize(items) : key.whole();
  return place >= 0 && place < std::ssize(items)
             ? std::optional(items[static_cast<std::size_t>(place)])
             : std::nullopt;
}

Undefined missing(const Value& value, const std::string& name) {
  return {fmt::format("'{}' has no attribute '{}'",
                      value.dict() ? "dict object" : value.type() + " object", name)};
}

// Filters

/// The part of a value that "a.b.0" names.
Value part(Value value, const Value& path) {
  if (!path.is_text()) return item(value, path);
  for (const auto& name : python::split(path.text(), ".", -1)) {
    const bool place = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    value = item(value, place ? Value(static_cast<std::int64_t>(std::stoll(name))) : Value(name));
  }
  return value;
}

Value without_case(const Value& value) {
  return value.is_text() ? Value(python::lower(value.text())) : value;
}

/// What items are compared by.
Value sort_key(const Value& value, const Value* attribute, bool case_sensitive) {
  const auto of = attribute && !attribute->is_none() ? part(value, *attribute) : value;
  return case_sensitive ? of : without_case(of);
}

Value default_filter(const Value& value, const Arguments& arguments) {
  Taker take("default", arguments);
  const auto* otherwise = take.optional("default_value");
  const bool boolean = take.flag("boolean");
  take.finish();
  return value.is_undefined() || (boolean && !value.truth()) ? (otherwise ? *otherwise : Value(""))
                                                             : value;
}

/// A text, or so many spaces.
std::string indentation(const Value& width) {
  return width.is_text()
             ? width.text()
             : std::string(static_cast<std::size_t>(std::max<std::int64_t>(0, width.whole())), ' ');
}

JsonStyle json_style(Taker take) {
  JsonStyle style;
  style.ascii = take.flag("ensure_ascii");
  if (const auto* indent = take.optional("indent"); indent && !indent->is_none()) {
    style.indent = indentation(*indent);
    style.between = ",";
  }
  if (const auto* separators = take.optional("separators"); separators && !separators->is_none()) {
    const auto both = separators->items();
    if (both.size() != 2 || !both[0].is_text() || !both[1].is_text())
      raise("tojson(): 'separators' must be two texts");
    style.between = both[0].text();
    style.after_key = both[1].text();
  }
  style.sorted = take.flag("sort_keys");
  take.finish();
  return style;
}

Value tojson(const Value& value, const Arguments& arguments) {
  return dumps(value, json_style({"tojson", arguments}));
}

Value trim(const Value& value, const Arguments& arguments) {
  Taker take("trim", arguments);
  return strip<python::Ends::both>(plain_str(value), take);
}

Value replace_filter(const Value& value, const Arguments& arguments) {
  Taker take("replace", arguments);
  const auto from = take.needed("old").str();
  const auto to = take.needed("new").str();
  return python::replaced(value.str(), from, to, take.whole("count", -1));
}

Value join_filter(const Value& value, const Arguments& arguments) {
  Taker take("join", arguments);
  const auto* between = take.optional("d");
  const auto* attribute = take.optional("attribute");
  const auto separator = between ? between->str() : "";
  std::string joined;
  bool first = true;
  for (const auto& one : value.items()) {
    joined.append(std::exchange(first, false) ? "" : separator);
    joined.append((attribute && !attribute->is_none() ? part(one, *attribute) : one).str());
  }
  return joined;
}

Value indent(const Value& value, const Arguments& arguments) {
  Taker take("indent", arguments);
  const auto* width = take.optional("width");
  const bool first = take.flag("first");
  const bool blank = take.flag("blank");
  take.finish();
  if (!value.is_text()) raise("indent: expected str, not {}", value.type());
  const auto by = width ? indentation(*width) : "    ";
  const auto lines = python::lines(plain(value) + "\n");
  std::string text = first ? by : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) text += "\n" + (blank || !lines[i].empty() ? by : "");
    text += lines[i];
  }
  return text;
}

std::optional<std::int64_t> whole_of(std::string_view text) {
  text = python::stripped(text);
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number)
                                                                  : std::nullopt;
}

std::optional<double> number_of(std::string_view text) {
  text = python::stripped(text);
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number)
                                                                  : std::nullopt;
}

std::int64_t truncated(double number) {
  if (!(std::abs(number) < 9e18)) raise("a whole number is too large");
  return static_cast<std::int64_t>(number);
}

Value int_filter(const Value& value, const Arguments& arguments) {
  Taker take("int", arguments);
  const auto* otherwise = take.optional("default");
  if (take.whole("base", 10) != 10) raise("int with another base than 10 is not supported");
  if (value.is_undefined()) raise("{}", value.as<Undefined>().message);
  if (value.is_whole()) return value.whole();
  if (value.is_number()) return truncated(value.number());
  if (value.is_text()) {
    if (const auto whole = whole_of(value.text())) return *whole;
    if (const auto number = number_of(value.text())) return truncated(*number);
  }
  return otherwise ? *otherwise : Value(0);
}

Value float_filter(const Value& value, const Arguments& arguments) {
  const auto* otherwise = Taker("float", arguments).optional("default");
  if (value.is_undefined()) raise("{}", value.as<Undefined>().message);
  if (value.is_number()) return value.number();
  const auto number = value.is_text() ? number_of(value.text()) : std::nullopt;
  return number ? Value(*number) : otherwise ? *otherwise : Value(0.0);
}

Value title(const Value& value, const Arguments&) {
  std::string text;
  bool inside = false;
  for (const auto& c : python::characters(plain_str(value))) {
    const bool between =
        python::stripped(c).empty() || std::string_view("-({[<").find(c) != std::string_view::npos;
    text += between ? c : inside ? python::lower(c) : python::upper(c);
    inside = !between;
  }
  return text;
}

Value first(const Value& value, const Arguments&) {
  return value.first().value_or(Undefined{"No first item, sequence was empty."});
}

Value last(const Value& value, const Arguments&) {
  if (value.is_sequence(Kind::iterator)) raise("'generator' object is not reversible");
  const auto items = value.items();
  return items.empty() ? Value(Undefined{"No last item, sequence was empty."}) : items.back();
}

Value dictsort(const Value& value, const Arguments& arguments) {
  Taker take("dictsort", arguments);
  const bool case_sensitive = take.flag("case_sensitive");
  const auto* by = take.optional("by");
  const bool reverse = take.flag("reverse");
  if (!value.dict()) raise("'{}' object has no attribute 'items'", value.type());
  const bool by_value = by && *by == Value("value");
  const auto key = [&](const auto& item) {
    return sort_key(by_value ? item.second : item.first, nullptr, case_sensitive);
  };
  auto items = *value.dict();
  std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
    return reverse ? key(b) < key(a) : key(a) < key(b);
  });
  return Value::list(pairs(items));
}

Value sort(const Value& value, const Arguments& arguments) {
  Taker take("sort", arguments);
  const bool reverse = take.flag("reverse");
  const bool case_sensitive = take.flag("case_sensitive");
  const auto* attribute = take.optional("attribute");
  const bool several =
      attribute && attribute->is_text() && attribute->text().find(',') != std::string::npos;
  if (several) raise("sort by several attributes is not supported");
  auto items = value.items();
  const auto key = [&](const Value& item) { return sort_key(item, attribute, case_sensitive); };
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    return reverse ? key(b) < key(a) : key(a) < key(b);
  });
  return Value::list(std::move(items));
}

Value unique(const Value& value, const Arguments& arguments) {
  Taker take("unique", arguments);
  const bool case_sensitive = take.flag("case_sensitive");
  const auto* attribute = take.optional("attribute");
  Values seen;
  Values kept;
  for (auto& item : value.items()) {
    auto key = sort_key(item, attribute, case_sensitive);
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
    seen.push_back(std::move(key));
    kept.push_back(std::move(item));
  }
  return iterator(std::move(kept));
}

template <bool greatest>
Value extreme(const Value& value, const Arguments& arguments) {
  Taker take(greatest ? "max" : "min", arguments);
  const bool case_sensitive = take.flag("case_sensitive");
  const auto* attribute = take.optional("attribute");
  const auto items = value.items();
  if (items.empty()) return Undefined{"No aggregated item, sequence was empty."};
  const auto less = [&](const Value& a, const Value& b) {
    const auto left = sort_key(a, attribute, case_sensitive);
    const auto right = sort_key(b, attribute, case_sensitive);
    return greatest ? right < left : left < right;
  };
  return *std::min_element(items.begin(), items.end(), less);
}

Value sum(const Value& value, const Arguments& arguments) {
  Taker take("sum", arguments);
  const auto* attribute = take.optional("attribute");
  const auto* start = take.optional("start");
  Value total = start ? *start : Value(0);
  for (const auto& item : value.items())
    total =
        arithmetic("+", total, attribute && !attribute->is_none() ? part(item, *attribute) : item);
  return total;
}

Value reverse(const Value& value, const Arguments&) {
  auto items = value.items();
  std::reverse(items.begin(), items.end());
  if (!value.is_text()) return iterator(std::move(items));
  plain(value);
  std::string text;
  for (const auto& item : items) text += item.text();
  return text;
}

Value round(const Value& value, const Arguments& arguments) {
  Taker take("round", arguments);
  const auto precision = take.whole("precision", 0);
  const auto* method = take.optional("method");
  if (!value.is_number()) raise("type {} doesn't define __round__ method", value.type());
  if (precision != 0 || (method && *method != Value("common")))
    raise("round with a precision or a method is not supported");
  return value.is_whole() ? Value(value.whole()) : Value(std::nearbyint(value.number()));
}

Value map(const Value& value, const Arguments& arguments) {
  Values results;
  if (!value.truth()) return iterator({});
  if (arguments.positional.empty()) {
    Taker take("map", arguments);
    const auto& attribute = take.needed("attribute");
    const auto* otherwise = take.optional("default");
    take.finish();
    for (const auto& item : value.items()) {
      auto found = part(item, attribute);
      results.push_back(found.is_undefined() && otherwise && !otherwise->is_none()
                            ? *otherwise
                            : std::move(found));
    }
    return iterator(std::move(results));
  }
  const auto name = arguments.positional.front().str();
  const auto apply = filter(name);
  if (!apply) raise("No filter named '{}'.", name);
  const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()},
                       arguments.named};
  for (const auto& item : value.items()) results.push_back(apply(item, rest));
  return iterator(std::move(results));
}

/// select, reject, selectattr, rejectattr
template <bool wanted, bool by_attribute>
Value select(const Value& value, const Arguments& arguments) {
  if (!value.truth()) return iterator({});
  auto rest = arguments;
  const auto next = [&] {
    auto argument = std::move(rest.positional.front());
    rest.positional.erase(rest.positional.begin());
    return argument;
  };
  if (by_attribute && rest.positional.empty()) raise("Missing parameter for attribute name");
  const auto attribute = by_attribute ? next() : Value();
  Filter is = nullptr;
  if (!rest.positional.empty()) {
    const auto name = next().str();
    is = test(name);
    if (!is) raise("No test named '{}'.", name);
  }
  Values kept;
  for (auto& item : value.items()) {
    const auto tested = by_attribute ? part(item, attribute) : item;
    if ((is ? is(tested, rest) : tested).truth() == wanted) kept.push_back(std::move(item));
  }
  return iterator(std::move(kept));
}

Value items_filter(const Value& value, const Arguments&) {
  if (value.is_undefined()) return iterator({});
  if (!value.dict()) raise("Can only get item pairs from a mapping.");
  return iterator(pairs(*value.dict()));
}

Value abs_filter(const Value& value, const Arguments&) {
  if (!value.is_number()) raise("bad operand type for abs(): '{}'", value.type());
  return value.is_whole() ? Value(std::abs(value.whole())) : Value(std::abs(value.number()));
}

Value attr(const Value& value, const Arguments& arguments) {
  const auto& name = Taker("attr", arguments).text("name");
  return own_attribute(value, name).value_or(missing(value, name));
}

template <std::string (*change)(std::string_view)>
Value text_filter(const Value& value, const Arguments&) {
  return change(plain_str(value));
}

Value string_filter(const Value& value, const Arguments&) {
  return value.is_safe() ? value : value.str();
}
Value safe(const Value& value, const Arguments&) { return Value::safe(value.str()); }
Value escape(const Value& value, const Arguments&) { return Value::safe(html(value)); }

Value format_filter(const Value& value, const Arguments& given) {
  return percent(plain_str(value), Value::sequence(Kind::tuple, given.positional));
}

const std::map<std::string, Filter>& filters() {
  static const std::map<std::string, Filter> filters = {
      {"abs", abs_filter},
      {"attr", attr},
      {"capitalize", text_filter<python::capitalized>},
      {"count", [](const Value& value, const Arguments&) { return Value(value.length()); }},
      {"d", default_filter},
      {"default", default_filter},
      {"dictsort", dictsort},
      {"e", escape},
      {"escape", escape},
      {"first", first},
      {"float", float_filter},
      {"format", format_filter},
      {"indent", indent},
      {"int", int_filter},
      {"items", items_filter},
      {"join", join_filter},
      {"last", last},
      {"length", [](const Value& value, const Arguments&) { return Value(value.length()); }},
      {"list", [](const Value& value, const Arguments&) { return Value::list(value.items()); }},
      {"lower", text_filter<python::lower>},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", select<false, false>},
      {"rejectattr", select<false, true>},
      {"replace", replace_filter},
      {"reverse", reverse},
      {"round", round},
      {"safe", safe},
      {"select", select<true, false>},
      {"selectattr", select<true, true>},
      {"sort", sort},
      {"string", string_filter},
      {"sum", sum},
      {"title", title},
      {"tojson", tojson},
      {"trim", trim},
      {"unique", unique},
      {"upper", text_filter<python::upper>},
  };
  return filters;
}

// Tests

const Value& other(const Arguments& arguments) {
  if (arguments.positional.size() != 1) raise("a test needs one value to compare with");
  return arguments.positional.front();
}

template <bool (*holds)(const Value&)>
Value holds_for(const Value& value, const Arguments&) {
  return holds(value);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_text(const Value& value) { return value.is_text(); }
bool is_number(const Value& value) { return value.is_number(); }
bool is_integer(const Value& value) { return value.is<std::int64_t>(); }
bool is_float(const Value& value) { return value.is<double>(); }
bool is_lowercase(const Value& value) { return python::is_lower(value.str()); }
bool is_uppercase(const Value& value) { return python::is_upper(value.str()); }
bool is_mapping(const Value& value) { return value.dict() != nullptr; }
bool is_boolean(const Value& value) { return value.is<bool>(); }
bool is_true(const Value& value) { return value.is<bool>() && value.as<bool>(); }
bool is_false(const Value& value) { return value.is<bool>() && !value.as<bool>(); }
bool is_callable(const Value& value) { return value.function() || value.is_undefined(); }
bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_text() || value.dict() || value.sequence();
}
bool is_indexed(const Value& value) {
  const bool sequence =
      value.sequence() && !value.is_sequence(Kind::iterator) && !value.is_sequence(Kind::view);
  return value.is_undefined() || value.is_text() || value.dict() || sequence;
}

template <int remainder>
Value parity(const Value& value, const Arguments&) {
  return arithmetic("%", value, 2) == Value(remainder);
}

Value divisible(const Value& value, const Arguments& arguments) {
  return arithmetic("%", value, other(arguments)) == Value(0);
}

Value same_as(const Value& value, const Arguments& arguments) {
  const auto& second = other(arguments);
  const auto plain = [](const Value& one) { return one.is_none() || one.is<bool>(); };
  if (!plain(value) && !plain(second))
    raise("'is sameas' is supported for true, false and none alone");
  return value.type() == second.type() && value == second;
}

template <bool (*compare)(const Value&, const Value&)>
Value compared(const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments));
}

bool equal(const Value& a, const Value& b) { return a == b; }
bool unequal(const Value& a, const Value& b) { return !(a == b); }
bool less(const Value& a, const Value& b) { return a < b; }
bool greater(const Value& a, const Value& b) { return b < a; }
bool less_or_equal(const Value& a, const Value& b) { return a < b || a == b; }
bool greater_or_equal(const Value& a, const Value& b) { return b < a || a == b; }
bool within(const Value& a, const Value& b) { return b.contains(a); }

const std::map<std::string, Filter>& tests() {
  static const std::map<std::string, Filter> tests = {
      {"defined", holds_for<is_defined>},
      {"undefined", holds_for<is_undefined>},
      {"none", holds_for<is_none>},
      {"string", holds_for<is_text>},
      {"number", holds_for<is_number>},
      {"integer", holds_for<is_integer>},
      {"float", holds_for<is_float>},
      {"lower", holds_for<is_lowercase>},
      {"upper", holds_for<is_uppercase>},
      {"boolean", holds_for<is_boolean>},
      {"true", holds_for<is_true>},
      {"false", holds_for<is_false>},
      {"mapping", holds_for<is_mapping>},
      {"iterable", holds_for<is_iterable>},
      {"sequence", holds_for<is_indexed>},
      {"callable", holds_for<is_callable>},
      {"odd", parity<1>},
      {"even", parity<0>},
      {"divisibleby", divisible},
      {"sameas", same_as},
      {"in", compared<within>},
      {"eq", compared<equal>},
      {"equalto", compared<equal>},
      {"==", compared<equal>},
      {"ne", compared<unequal>},
      {"!=", compared<unequal>},
      {"lt", compared<less>},
      {"lessthan", compared<less>},
      {"<", compared<less>},
      {"gt", compared<greater>},
      {"greaterthan", compared<greater>},
      {">", compared<greater>},
      {"le", compared<less_or_equal>},
      {"<=", compared<less_or_equal>},
      {"ge", compared<greater_or_equal>},
      {">=", compared<greater_or_equal>},
  };
  return tests;
}

// Functions

Value raise_exception(const Arguments& arguments) {
  raise("{}", Taker("raise_exception", arguments).needed("message").str());
}

/// Always 26 July 2024, the date that Llama's templates fall back on: a data set must not depend on
/// the day it is made.
Value strftime_now(const Arguments& arguments) {
  const auto& format = Taker("strftime_now", arguments).text("format");
  std::tm day{};
  day.tm_year = 124;
  day.tm_mon = 6;
  day.tm_mday = 26;
  day.tm_wday = 5;
  day.tm_yday = 207;
  std::array<char, 256> text{};
  const auto size = std::strftime(text.data(), text.size(), format.c_str(), &day);
  if (size == 0 && !format.empty())
    raise("strftime_now(): the format '{}' gives no text, or a long one", format);
  return std::string(text.data(), size);
}

Value range(const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3)
    raise("range expected 1 to 3 arguments, got {}", given.size());
  for (const auto& one : given)
    if (!one.is_whole()) raise("'{}' object cannot be interpreted as an integer", one.type());
  const auto start = given.size() > 1 ? given[0].whole() : 0;
  const auto stop = given[given.size() > 1 ? 1 : 0].whole();
  const auto step = given.size() > 2 ? given[2].whole() : 1;
  if (step == 0) raise("range() arg 3 must not be zero");
  Values items;
  for (auto i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (items.size() == 100000)
      raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    items.emplace_back(i);
  }
  return Value::sequence(Kind::range, std::move(items));
}

/// dict(another, name=value, ...)
Dict dict_of(const Arguments& arguments) {
  Dict result;
  const auto put = [&](const Value& key, const Value& value) {
    const auto found = std::find_if(result.begin(), result.end(),
                                    [&](const auto& one) { return one.first == key; });
    if (found == result.end())
      result.emplace_back(key, value);
    else
      found->second = value;
  };
  if (arguments.positional.size() > 1)
    raise("dict expected at most 1 argument, got {}", arguments.positional.size());
  for (const auto& from : arguments.positional) {
    if (const auto* dict = from.dict()) {
      for (const auto& [key, value] : *dict) put(key, value);
      continue;
    }
    for (const auto& pair : from.items()) {
      const auto both = pair.items();
      if (both.size() != 2)
        raise("dictionary update sequence element has length {}; 2 is required", both.size());
      put(both[0], both[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) put(name, value);
  return result;
}

Value make_namespace(const Arguments& arguments) {
  auto result = std::make_shared<Namespace>();
  for (auto& [name, value] : dict_of(arguments)) result->set(name.str(), std::move(value));
  return std::shared_ptr<Object>(std::move(result));
}

Value joiner(const Arguments& arguments) {
  const auto* separator = Taker("joiner", arguments).optional("sep");
  return Value::function([between = separator ? *separator : Value(", "),
                          used = std::make_shared<bool>(false)](const Arguments&) {
    return std::exchange(*used, true) ? between : Value("");
  });
}

// Arithmetic

[[noreturn]] void unsupported(const std::string& sign, const Value& left, const Value& right) {
  for (const auto* value : {&left, &right})
    if (value->is_undefined()) raise("{}", value->as<Undefined>().message);
  if (sign == "+" && left.is_text())
    raise("can only concatenate str (not \"{}\") to str", right.type());
  raise("unsupported operand type(s) for {}: '{}' and '{}'", sign, left.type(), right.type());
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(result, base, &result)) raise("a whole number is too large");
  return result;
}

Value whole_arithmetic(const std::string& sign, std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  const bool too_large = sign == "+" ? __builtin_add_overflow(left, right, &result)
                         : sign == "-"
                             ? __builtin_sub_overflow(left, right, &result)
                             : sign == "*" && __builtin_mul_overflow(left, right, &result);
  if (too_large) raise("a whole number is too large");
  if (sign == "+" || sign == "-" || sign == "*") return result;
  if (sign == "**")
    return right < 0 ? Value(std::pow(static_cast<double>(left), static_cast<double>(right)))
                     : Value(power(left, right));
  if (right == 0) raise("division by zero");
  if (sign == "/") return static_cast<double>(left) / static_cast<double>(right);
  const auto remainder = (left % right + right) % right;  // with the sign of the divisor
  return sign == "%" ? remainder : (left - remainder) / right;
}

Value number_arithmetic(const std::string& sign, double left, double right) {
  if (sign == "+") return left + right;
  if (sign == "-") return left - right;
  if (sign == "*") return left * right;
  if (sign == "**") return std::pow(left, right);
  if (right == 0) raise("float division by zero");
  if (sign == "/") return left / right;
  const auto floor = std::floor(left / right);
  return sign == "//" ? floor : left - floor * right;
}

Value repeated(const Value& value, std::int64_t times) {
  if (times > 1 && value.length() * times > 10'000'000) raise("a repeated value is too long");
  if (value.is_text()) {
    plain(value);
    std::string text;
    for (std::int64_t i = 0; i < times; ++i) text += value.text();
    return text;
  }
  Values items;
  for (std::int64_t i = 0; i < times; ++i)
    for (auto& one : value.items()) items.push_back(std::move(one));
  return Value::sequence(value.sequence()->kind, std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_text() || value.is_sequence(Kind::list) || value.is_sequence(Kind::tuple);
}

Value concatenated(const Value& left, const Value& right) {
  if (left.is_safe() || right.is_safe()) return Value::safe(html(left) + html(right));
  if (left.is_text()) return left.text() + right.text();
  auto items = left.items();
  for (auto& one : right.items()) items.push_back(std::move(one));
  return Value::sequence(left.sequence()->kind, std::move(items));
}

}  // namespace

Filter filter(const std::string& name) {
  const auto found = filters().find(name);
  return found == filters().end() ? nullptr : found->second;
}

Filter test(const std::string& name) {
  const auto found = tests().find(name);
  return found == tests().end() ? nullptr : found->second;
}

std::optional<Value> global(const std::string& name) {
  static const std::map<std::string, Value> globals = {
      {"raise_exception", Value::function(raise_exception)},
      {"strftime_now", Value::function(strftime_now)},
      {"range", Value::function(range)},
      {"dict",
       Value::function([](const Arguments& arguments) { return Value::dict(dict_of(arguments)); })},
      {"namespace", Value::function(make_namespace)},
      {"joiner", Value::function(joiner)},
  };
  if (name == "cycler" || name == "lipsum") raise("the function '{}' is not supported", name);
  const auto found = globals.find(name);
  return found == globals.end() ? std::nullopt : std::optional(found->second);
}

Value attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) raise("{}", value.as<Undefined>().message);
  if (auto found = own_attribute(value, name)) return *found;
  return own_item(value, name).value_or(missing(value, name));
}

Value item(const Value& value, const Value& key) {
  if (value.is_undefined()) raise("{}", value.as<Undefined>().message);
  if (auto found = own_item(value, key)) return *found;
  if (!key.is_text()) return missing(value, key.str());
  return own_attribute(value, key.text()).value_or(missing(value, key.text()));
}

Value arithmetic(const std::string& sign, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number())
    return left.is_whole() && right.is_whole()
               ? whole_arithmetic(sign, left.whole(), right.whole())
               : number_arithmetic(sign, left.number(), right.number());
  if (sign == "%" && left.is_text() && !right.is_undefined()) return percent(plain(left), right);
  if (sign == "*" && is_repeatable(left) && right.is_whole()) return repeated(left, right.whole());
  if (sign == "*" && is_repeatable(right) && left.is_whole()) return repeated(right, left.whole());
  const bool alike = is_repeatable(left) && left.type() == right.type();
  if (sign != "+" || !alike) unsupported(sign, left, right);
  return concatenated(left, right);
}

Value call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) raise("{}", callee.as<Undefined>().message);
  if (!callee.function()) raise("'{}' object is not callable", callee.type());
  return (*callee.function())(arguments);
}

}  // namespace attune::jinja
