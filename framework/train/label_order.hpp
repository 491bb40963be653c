// A base that is a classifier of the data's labels may number them otherwise than the data do.
#pragma once
#include <attune/strategy.hpp>
#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace attune::train {

/// order[i]: the output of the base that config.json (id2label) calls as the data call label i,
/// case aside. Empty where the order is the same, or where the two do not name the same labels.
using LabelOrder = std::vector<std::int64_t>;
LabelOrder label_order(const nlohmann::json& config, const std::vector<std::string>& labels);

/// The head's rows, in the base's order, in that of the data.
void order_head(Model& model, const LabelOrder& order);

/// The same for the head that an adapter holds.
void order_head(Adapter& adapter, Model& model, const LabelOrder& order);

/// From the data's order to the base's.
LabelOrder inverse(const LabelOrder& order);

}  // namespace attune::train
