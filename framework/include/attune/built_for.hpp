// Build facts of a plugin library, stored as a note in its ELF file (System V ABI, "Note Section").
// Attune reads and compares the note before it loads the library. The note is plain text, one
// `key=value` line per fact; `readelf -n` prints it.
#pragma once
#include <attune/api_hash.hpp>
#include <nlohmann/json_fwd.hpp>
#include <torch/headeronly/version.h>

#include <version>  // the macros of the standard library

#define ATTUNE_STRINGIFY_(x) #x
#define ATTUNE_STRINGIFY(x) ATTUNE_STRINGIFY_(x)

#if defined(__clang__)
#define ATTUNE_COMPILER "clang++ " ATTUNE_STRINGIFY(__clang_major__)
#else
#define ATTUNE_COMPILER "g++ " ATTUNE_STRINGIFY(__GNUC__)
#endif

#if defined(_LIBCPP_VERSION)
#define ATTUNE_STANDARD_LIBRARY "libc++ " ATTUNE_STRINGIFY(_LIBCPP_VERSION)
#else
#define ATTUNE_STANDARD_LIBRARY                                                    \
  "libstdc++ " ATTUNE_STRINGIFY(_GLIBCXX_RELEASE) ", cxx11 ABI " ATTUNE_STRINGIFY( \
      _GLIBCXX_USE_CXX11_ABI)
#endif

// _GLIBCXX_DEBUG changes the layout of every container.
#if defined(_GLIBCXX_DEBUG)
#define ATTUNE_CONTAINERS "debug (_GLIBCXX_DEBUG)"
#else
#define ATTUNE_CONTAINERS "plain"
#endif

// Sanitizers whose runtime must be loaded at process start. The runtime of -fsanitize=undefined can
// be loaded at any time.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ATTUNE_SANITIZER "address"
#elif __has_feature(thread_sanitizer)
#define ATTUNE_SANITIZER "thread"
#elif __has_feature(memory_sanitizer)
#define ATTUNE_SANITIZER "memory"
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ATTUNE_SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define ATTUNE_SANITIZER "thread"
#endif
#ifndef ATTUNE_SANITIZER
#define ATTUNE_SANITIZER "none"
#endif

/// The lines of the note, each terminated by `end`. All are compared except `attune`, which only
/// appears in the message about a mismatch.
// clang-format off
#define ATTUNE_BUILT_FOR(end)                                      \
  "attune=" ATTUNE_RELEASE end                                     \
  "headers=" ATTUNE_API_HASH end                                   \
  "libtorch=" TORCH_VERSION end                                    \
  "compiler=" ATTUNE_COMPILER end                                  \
  "standard=" ATTUNE_STRINGIFY(__cplusplus) end                    \
  "library=" ATTUNE_STANDARD_LIBRARY end                           \
  "containers=" ATTUNE_CONTAINERS end                              \
  "sanitizer=" ATTUNE_SANITIZER end                                \
  "json=" ATTUNE_STRINGIFY(NLOHMANN_JSON_NAMESPACE) end
// clang-format on

/// Owner name of the note, and its type: the version of the text layout.
#define ATTUNE_NOTE_OWNER "attune"
#define ATTUNE_NOTE_TYPE 1

/// Stores `text`, a string literal for the assembler ("\\n" ends a line), in section .note.attune.
/// The section is allocated, so `strip` keeps it; it is a note, so the linker's --gc-sections keeps
/// it.
// clang-format off
#define ATTUNE_NOTE(text)                                          \
  __asm__(".pushsection .note.attune, \"a\", %note\n"              \
          ".balign 4\n"                                            \
          ".long 2f - 1f, 4f - 3f, " ATTUNE_STRINGIFY(ATTUNE_NOTE_TYPE) "\n" \
          "1: .asciz \"" ATTUNE_NOTE_OWNER "\"\n"                  \
          "2: .balign 4\n"                                         \
          "3: .ascii \"" text "\"\n"                               \
          "4: .balign 4\n"                                         \
          ".popsection\n");
// clang-format on
