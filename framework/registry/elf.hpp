// Inspection of a shared library without loading it, because loading would run its code.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace attune::registry {

/// Whether the ELF shared library defines `function` in its dynamic symbol table, which dlsym uses
/// and which stripped libraries keep. Error if the file is not a complete shared library for this
/// machine type. All headers, tables and segments are checked against the file's size, so that
/// neither this function nor dlopen reads past the end of a truncated or forged file. Layout:
/// System V ABI, "Object Files" (elf.h).
bool exports_symbol(const std::filesystem::path& library, std::string_view function);

/// Content of the library's first note with that owner and type; absent if there is none. Reads
/// segments as the dynamic linker does, so a library without sections keeps its notes. Errors as
/// for exports_symbol().
std::optional<std::string> read_note(const std::filesystem::path& library, std::string_view owner,
                                     std::uint32_t type);

}  // namespace attune::registry
