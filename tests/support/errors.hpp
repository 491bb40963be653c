// What a mistake of the user is answered with.
#pragma once
#include <attune/error.hpp>

#include <string>

namespace attune {

/// The text of the Error that work throws; "no error" when it throws none.
template <class Work>
std::string error_of(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace attune
