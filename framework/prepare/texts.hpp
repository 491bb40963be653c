// A record's texts: what cleaning, masking and comparing look at.
#pragma once
#include <attune/dataset.hpp>

namespace attune {

/// use(text) for every field but `label`, and every message. Texts may be changed when the record may.
template <class AnyRecord, class Use>
void for_each_text(AnyRecord& record, Use use) {
  for (auto& [name, value] : record.fields)
    if (name != "label") use(value);
  for (auto& message : record.messages) use(message.content);
}

}  // namespace attune
