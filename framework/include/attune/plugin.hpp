// The entry point of a plugin library: one C symbol that returns a plain C struct, explicit
// registration, and a note with the build facts.
//
//   ATTUNE_PLUGIN("bitfit", "1.0.0", registry) {
//     registry.strategy<BitFit>("bitfit", "trains the biases alone");
//   }
#pragma once
#include <attune/api.hpp>
#include <attune/built_for.hpp>
#include <attune/callback.hpp>
#include <attune/dataset.hpp>
#include <attune/error.hpp>
#include <attune/model.hpp>
#include <attune/optimizer.hpp>
#include <attune/registry.hpp>
#include <attune/schedule.hpp>
#include <attune/strategy.hpp>

#include <cstdint>

extern "C" {
/// Plain C. New members are appended; `size` tells the loader which members exist.
struct AttunePluginInfo {
  std::uint32_t size;
  const char* name;
  const char* version;
  const char* build_id;  // compiler and build type
  void (*add)(attune::Registry&);
};
}

#define ATTUNE_PLUGIN(plugin_name, plugin_version, registry)                                  \
  ATTUNE_NOTE(ATTUNE_BUILT_FOR("\\n"))                                                        \
  static void attune_plugin_add(::attune::Registry&);                                         \
  extern "C" ATTUNE_API const AttunePluginInfo* attune_plugin() {                             \
    static const AttunePluginInfo info{sizeof(AttunePluginInfo), plugin_name, plugin_version, \
                                       ATTUNE_BUILD_ID, &attune_plugin_add};                  \
    return &info;                                                                             \
  }                                                                                           \
  static void attune_plugin_add(::attune::Registry& registry)

/// Set by attune_add_plugin. Builds without it may define their own value.
#ifndef ATTUNE_BUILD_ID
#define ATTUNE_BUILD_ID "unknown"
#endif
