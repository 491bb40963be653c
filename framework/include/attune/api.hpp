// Symbol visibility: libattune.so exports only what the public headers declare. All code is
// compiled with -fvisibility=hidden. Decision record: docs/design/0024-plugin-abi.md.
#pragma once

/// Exports one declaration. Needed for templates that the framework instantiates, because
/// ATTUNE_API_BEGIN does not affect them.
#define ATTUNE_API __attribute__((visibility("default")))

/// Enclose the declarations of a public header. ATTUNE_API_BEGIN follows the includes.
#define ATTUNE_API_BEGIN _Pragma("GCC visibility push(default)")
#define ATTUNE_API_END _Pragma("GCC visibility pop")
