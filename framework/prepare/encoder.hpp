// Encoding of records into samples by the dataset plugin.
#pragma once
#include <attune/dataset.hpp>
#include <attune/registry.hpp>
#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "prepare/ledger.hpp"
#include "prepare/plan.hpp"
#include "prepare/recipe.hpp"

namespace attune {

class Encoder {
 public:
  /// Creates the recipe's tokenizer, chat template and dataset plugin.
  Encoder(const Recipe& recipe, const Registry& registry);

  /// SHA-256 of the tokenizer; "" if there is none.
  const std::string& digest() const { return digest_; }
  const Dataset& dataset() const { return *dataset_; }
  /// The chat template in Jinja; empty if there is none.
  ChatSource chat_source() const;
  /// Name of the built-in chat format that the recipe names; otherwise "".
  std::string form() const;
  /// The samples of these draws, in order. Rejected records are noted in the ledger.
  std::vector<Sample> encode(const std::vector<Draw>& draws, const Records& records,
                             const std::vector<std::string>& labels, Ledger& ledger) const;

 private:
  Encoder(const Recipe& recipe, const Registry& registry, const nlohmann::json& tokenizer);
  void encode(const Record& record, const EncodeContext& context, std::vector<Sample>& samples,
              Ledger& ledger) const;

  const Recipe& recipe_;
  std::shared_ptr<Dataset> dataset_;
  std::string digest_;
  Tokenizer tokenizer_;
  ChatSource source_;  // empty for a built-in format
  std::optional<ChatTemplate> chat_;
  std::vector<std::int32_t> frame_;  // tokens that the tokenizer adds around a text
};

}  // namespace attune
