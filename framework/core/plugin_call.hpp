// Calls of plugin functions. Exceptions are reported with the plugin's name.
#pragma once
#include <attune/error.hpp>

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include "core/out_of_memory.hpp"

namespace attune {

/// Description of a call: "strategy 'ewc'", "on_step", 12
struct PluginCall {
  std::string plugin;
  std::string function;
  std::optional<std::int64_t> step;  // from 0
};

/// Throws a Fault that names plugin, function and step, counted from 1. Only the first line of
/// `what` is included.
[[noreturn]] void fail_in_plugin(const PluginCall& call, const std::string& what);

/// Returns the result of `work`. Error, Fault, and exceptions accepted by is_ours (the framework's
/// responsibility) propagate unchanged.
template <class Work>
auto call_plugin(const PluginCall& call, Work&& work,
                 bool (*is_ours)(const std::exception&) = is_out_of_memory) -> decltype(work()) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const Fault&) {
    throw;
  } catch (const std::exception& error) {
    if (is_ours(error)) throw;
    fail_in_plugin(call, error.what());
  } catch (...) {
    fail_in_plugin(call, "it threw something that is not a std::exception");
  }
}

}  // namespace attune
