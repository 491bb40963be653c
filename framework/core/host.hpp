// The machine that this process runs on, as it is told to the user and shared among ranks.
#pragma once
#include <string>
#include <vector>

namespace attune {

std::string host_name();

/// The processors this process may run on, by number.
std::vector<int> allowed_processors();

}  // namespace attune
