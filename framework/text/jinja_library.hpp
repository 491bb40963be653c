// Callables of templates: filters, tests, methods of values, and functions.
#pragma once
#include <optional>
#include <string>

#include "text/jinja_value.hpp"

namespace attune::jinja {

using Filter = Value (*)(const Value& value, const Arguments& arguments);

/// nullptr if the name is unknown.
Filter filter(const std::string& name);
Filter test(const std::string& name);
/// raise_exception, strftime_now, range, dict, namespace, joiner.
std::optional<Value> global(const std::string& name);

/// value.name and value[key] with Jinja's lookup rules; undefined if there is no such member.
Value attribute(const Value& value, const std::string& name);
Value item(const Value& value, const Value& key);

/// Evaluates left (sign) right: + - * / // % **
Value arithmetic(const std::string& sign, const Value& left, const Value& right);
Value call(const Value& callee, const Arguments& arguments);

}  // namespace attune::jinja
