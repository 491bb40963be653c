// The readers of files that others made. Each takes the bytes of a file, whatever they are, and
// reads all that can be read: they are whole, or an Error says why not. Anything else (a crash,
// another exception, a large allocation) is a fault of the reader.
#pragma once
#include <map>
#include <string>
#include <string_view>

namespace attune::fuzz {

using Reader = void (*)(std::string_view bytes);

/// By name: json, gguf, chat_template, ... fuzz.cmake lists them.
const std::map<std::string, Reader>& readers();

}  // namespace attune::fuzz
