// Masking of personal data that has a recognisable form.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "prepare/ledger.hpp"

namespace attune {

/// Kinds supported by mask_personal_data: "email", "phone", "card", "ip".
std::vector<std::string> mask_kinds();

/// Replaces texts of these kinds in the record by "[EMAIL]", "[PHONE]", "[CARD]" or "[IP]", and
/// counts each as a change.
///
/// email: local@domain.tld. card: 13 to 19 digits, grouped or not, that start with 2 to 6 and pass
/// the Luhn check (ISO/IEC 7812-1). ip: IPv4 with four numbers up to 255, and IPv6. phone: with a
/// country code (+49 30 ...), an area code in brackets, a leading 0 and groups, or in North
/// American form (555-123-4567). Names and addresses have no recognisable form and are kept.
void mask_personal_data(const std::vector<std::string>& kinds, Record& record, Ledger& ledger);

}  // namespace attune
