// What a template may call: filters, tests, methods of values, functions.
#pragma once
#include <optional>
#include <string>

#include "text/jinja_value.hpp"

namespace attune::jinja {

using Filter = Value (*)(const Value& value, const Arguments& arguments);

/// Null: there is none of this name.
Filter filter(const std::string& name);
Filter test(const std::string& name);
/// raise_exception, strftime_now, range, dict, namespace, joiner.
std::optional<Value> global(const std::string& name);

/// value.name and value[key], as Jinja finds them: undefined where there is nothing.
Value attribute(const Value& value, const std::string& name);
Value item(const Value& value, const Value& key);

/// left (sign) right: + - * / // % **
Value arithmetic(const std::string& sign, const Value& left, const Value& right);
Value call(const Value& callee, const Arguments& arguments);

}  // namespace attune::jinja
