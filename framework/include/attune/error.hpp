// Two kinds of failure. attune::Error is the user's mistake: one sentence saying what is wrong,
// where, and the cure; the program ends with exit code 2. ATTUNE_ASSERT is our bug: it reports
// values, file and line, and the program ends with exit code 3.
#pragma once
#include <attune/api.hpp>
#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

ATTUNE_API_BEGIN
namespace attune {

/// What the program returns; part of the contract with schedulers and scripts.
enum class ExitCode : int { done = 0, user_mistake = 2, fault = 3, interrupted = 75 };

/// The user's mistake. The text is shown as it is.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Our bug, or a fault of the system.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws attune::Error with a formatted text.
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

/// ATTUNE_ASSERT(condition, "format", values...): must hold whatever the user does.
#define ATTUNE_ASSERT(condition, ...)                                    \
  do {                                                                   \
    if (!(condition))                                                    \
      ::attune::detail::assertion_failed(#condition, __FILE__, __LINE__, \
                                         fmt::format("" __VA_ARGS__));   \
  } while (false)
