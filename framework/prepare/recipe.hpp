// The recipe: which raw files become a data file, and how.
#pragma once
#include <attune/registry.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "prepare/source.hpp"

namespace attune {

namespace config {
struct Document;
}

struct CleanOptions {
  std::string normalize = "none";
  bool control_characters = false;
  std::int64_t min_length = 0;
  std::int64_t max_length = 0;
  std::vector<std::string> labels;
  std::string deduplicate = "exact";
  double similarity = 0.8;
  static void describe(Schema<CleanOptions>& s);
};

struct PrivacyOptions {
  std::vector<std::string> mask;
  static void describe(Schema<PrivacyOptions>& s);
};

struct SplitOptions {
  double validation = 0.1;
  double test = 0;
  std::int64_t seed = 0;
  bool stratify = false;
  std::string leakage = "none";
  static void describe(Schema<SplitOptions>& s);
};

struct BalanceOptions {
  std::string method = "none";
  static void describe(Schema<BalanceOptions>& s);
};

struct AugmentOptions {
  std::int64_t copies = 0;
  double swap = 0.1;
  double drop = 0.1;
  std::vector<std::string> fields{"text", "prompt"};
  static void describe(Schema<AugmentOptions>& s);
};

struct TruncateOptions {
  std::int64_t max_length = 0;
  std::string policy = "right";
  std::int64_t overlap = 0;
  static void describe(Schema<TruncateOptions>& s);
};

/// The options of the dataset plugin are at the recipe's top level, beside the recipe's own.
struct Recipe {
  std::string name;
  std::string kind;
  std::string licence;
  std::string output;
  std::string tokenizer;
  std::string chat_template;
  std::string on_error = "stop";
  bool list_rejected = false;
  std::vector<SourceOptions> sources;
  CleanOptions clean;
  PrivacyOptions privacy;
  SplitOptions split;
  BalanceOptions balance;
  AugmentOptions augment;
  TruncateOptions truncate;
  std::shared_ptr<const void> dataset_options;  // Options of the dataset plugin `kind`

  std::filesystem::path path;  // of the recipe file
  std::string text;            // unchanged text of the recipe file

  static void describe(Schema<Recipe>& s);
  /// Reports all mistakes in one Error, each with file:line:column.
  static Recipe parse(const config::Document& document, const Registry& registry);
  /// Resolves a path relative to the recipe's folder.
  std::filesystem::path resolve(const std::string& relative) const {
    return (path.parent_path() / relative).lexically_normal();
  }
};

/// The tables of a recipe with their options, for the reference page; "" is the top level.
std::vector<std::pair<std::string, OptionSet>> recipe_sections();

}  // namespace attune
