// What a shared library exports, read from its file without opening it: opening would run its code.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace attune::registry {

/// Whether the ELF shared library defines the function `function` in its dynamic symbol table, the
/// one dlsym looks in; stripped libraries keep it. Error when the file is not a whole shared
/// library for this kind of machine: every header, table and segment is checked against the file's
/// size before it is followed, so that neither this function nor dlopen can run past the end of a
/// truncated or forged file. Layout: System V ABI, "Object Files" (elf.h).
bool exports_symbol(const std::filesystem::path& library, std::string_view function);

/// What the library's first note of that owner and type holds, byte for byte; absent when it has
/// none. Read from the segments, as the linker of the running system does: a library without
/// sections keeps its notes. Errors as above.
std::optional<std::string> read_note(const std::filesystem::path& library, std::string_view owner,
                                     std::uint32_t type);

}  // namespace attune::registry
