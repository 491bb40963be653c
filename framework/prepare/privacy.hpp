// Personal data that can be told by its form.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "prepare/ledger.hpp"

namespace attune {

/// "email", "phone", "card", "ip": what mask_personal_data knows.
std::vector<std::string> mask_kinds();

/// Replaces in all texts of the record what looks like one of these kinds by "[EMAIL]", "[PHONE]",
/// "[CARD]", "[IP]", and counts each as a change.
///
/// email: local@domain.tld. card: 13 to 19 digits, in groups or not, that begin with 2 to 6 and
/// pass the Luhn check (ISO/IEC 7812-1). ip: IPv4 in four numbers up to 255, and IPv6. phone: with
/// a country code (+49 30 ...), an area code in brackets, a leading 0 and groups, or in the North
/// American form 555-123-4567. Names and addresses have no form, and stay.
void mask_personal_data(const std::vector<std::string>& kinds, Record& record, Ledger& ledger);

}  // namespace attune
