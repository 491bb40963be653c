// Two kinds of failure. attune::Error is a user error: one sentence that states the problem, its
// place and its remedy; the program ends with exit code 2. ATTUNE_ASSERT reports a bug in Attune
// with values, file and line; the program ends with exit code 3.
#pragma once
#include <attune/api.hpp>
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

ATTUNE_API_BEGIN
namespace attune {

/// Exit codes of the program, a stable interface for schedulers and scripts.
enum class ExitCode : int { done = 0, user_mistake = 2, fault = 3, interrupted = 75 };

/// A user error. The text is printed unchanged.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A bug in Attune, or a failure of the system.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws attune::Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(fmt::format(text, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line,
                                   const std::string& values);
}

}  // namespace attune
ATTUNE_API_END

/// ATTUNE_ASSERT(condition, "format", values...): checks an invariant that no user input can
/// violate.
#define ATTUNE_ASSERT(condition, ...)                                    \
  do {                                                                   \
    if (!(condition))                                                    \
      ::attune::detail::assertion_failed(#condition, __FILE__, __LINE__, \
                                         fmt::format("" __VA_ARGS__));   \
  } while (false)
