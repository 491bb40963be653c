// What is done to a record by itself, before it is compared with others.
#pragma once
#include "prepare/ledger.hpp"
#include "prepare/recipe.hpp"

namespace attune {

/// Normal form, control characters and lengths, as [clean] says. False: dropped, and noted.
bool clean(const CleanOptions& options, Record& record, Ledger& ledger);

/// BadRow when one of the names is none of those that [clean] names.
void check_labels(const CleanOptions& options, const Record& record,
                  const std::vector<std::string>& names);

}  // namespace attune
