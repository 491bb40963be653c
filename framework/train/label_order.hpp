// Label orders of base models: a base that classifies the data's labels may number them
// differently.
#pragma once
#include <attune/strategy.hpp>
#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace attune::train {

/// order[i] is the base's output for data label i, matched by name in id2label of config.json,
/// ignoring case. Empty if both orders agree or the label names differ.
using LabelOrder = std::vector<std::int64_t>;
LabelOrder label_order(const nlohmann::json& config, const std::vector<std::string>& labels);

/// Reorders the head's rows from the base's order to the data's order.
void order_head(Model& model, const LabelOrder& order);

/// The same for the head in an adapter.
void order_head(Adapter& adapter, Model& model, const LabelOrder& order);

/// The inverse order, from the data to the base.
LabelOrder inverse(const LabelOrder& order);

}  // namespace attune::train
