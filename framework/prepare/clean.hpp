// Cleaning of single records, before they are compared with others.
#pragma once
#include "prepare/ledger.hpp"
#include "prepare/recipe.hpp"

namespace attune {

/// Applies [clean]: normalisation, control characters and length limits. Returns false, and notes
/// the reason, if the record is dropped.
bool clean(const CleanOptions& options, Record& record, Ledger& ledger);

/// BadRow if a name is not in the labels of [clean].
void check_labels(const CleanOptions& options, const Record& record,
                  const std::vector<std::string>& names);

}  // namespace attune
