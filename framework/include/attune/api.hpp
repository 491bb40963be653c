// What libattune.so exports: what the public headers declare, and nothing else. All code is
// compiled with -fvisibility=hidden. Decision record: docs/design/0024-plugin-abi.md.
#pragma once

/// For one declaration: a template that the framework instantiates, which ATTUNE_API_BEGIN does not
/// reach.
#define ATTUNE_API __attribute__((visibility("default")))

/// Around the declarations of a public header, behind its includes.
#define ATTUNE_API_BEGIN _Pragma("GCC visibility push(default)")
#define ATTUNE_API_END _Pragma("GCC visibility pop")
