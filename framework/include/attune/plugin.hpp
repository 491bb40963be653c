// The entry point of a plugin library: one C symbol, one plain C struct, explicit registration.
//
//   ATTUNE_PLUGIN("bitfit", "1.0.0", registry) { registry.strategy<BitFit>("bitfit", "trains the biases alone"); }
#pragma once
#include <attune/callback.hpp>
#include <attune/dataset.hpp>
#include <attune/error.hpp>
#include <attune/model.hpp>
#include <attune/registry.hpp>
#include <attune/strategy.hpp>
#include <torch/headeronly/version.h>

#include <cstdint>

/// Raised whenever a public header changes in a way that old plugins would not survive.
#define ATTUNE_API_VERSION 7

#define ATTUNE_STRINGIFY_(x) #x
#define ATTUNE_STRINGIFY(x) ATTUNE_STRINGIFY_(x)
/// LibTorch's version and the standard library's ABI, as one text.
#define ATTUNE_TORCH_ABI "LibTorch " TORCH_VERSION ", cxx11 ABI " ATTUNE_STRINGIFY(_GLIBCXX_USE_CXX11_ABI)
#define ATTUNE_COMPILER "g++ " ATTUNE_STRINGIFY(__GNUC__)

extern "C" {
/// Plain C, so that any compiler reads it alike. New members go to the end: `size` tells which are there.
struct AttunePluginInfo {
  std::uint32_t size;
  std::uint32_t api_version;
  const char* torch_abi;
  const char* compiler;
  long cpp_standard;        // __cplusplus
  const char* name;
  const char* version;
  const char* build_id;     // date and time of compilation
  void (*add)(attune::Registry&);
};
}

#define ATTUNE_PLUGIN(plugin_name, plugin_version, registry)                                                                   \
  static void attune_plugin_add(::attune::Registry&);                                                                          \
  extern "C" __attribute__((visibility("default"))) const AttunePluginInfo* attune_plugin() {                                  \
    static const AttunePluginInfo info{sizeof(AttunePluginInfo), ATTUNE_API_VERSION, ATTUNE_TORCH_ABI, ATTUNE_COMPILER,        \
                                       __cplusplus, plugin_name, plugin_version, ATTUNE_BUILD_ID, &attune_plugin_add};         \
    return &info;                                                                                                              \
  }                                                                                                                            \
  static void attune_plugin_add(::attune::Registry& registry)

/// Set by attune_add_plugin; a plugin built by hand may define its own.
#ifndef ATTUNE_BUILD_ID
#define ATTUNE_BUILD_ID "unknown"
#endif
