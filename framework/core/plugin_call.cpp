#include "core/plugin_call.hpp"

namespace attune {

void fail_in_plugin(const PluginCall& call, const std::string& what) {
  const auto when = call.step ? fmt::format(" at step {}", *call.step + 1) : "";
  throw Fault(fmt::format("{} failed in {}{}: {}", call.plugin, call.function, when,
                          what.substr(0, what.find('\n'))));
}

}  // namespace attune
