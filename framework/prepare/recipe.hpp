// The recipe: what raw files become a data file, and how.
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
  std::string deduplicate = "exact";
  static void describe(Schema<CleanOptions>& s);
};

struct SplitOptions {
  double validation = 0.1;
  double test = 0;
  std::int64_t seed = 0;
  bool stratify = false;
  static void describe(Schema<SplitOptions>& s);
};

/// The options of the dataset plugin stand beside the recipe's own, at its top level.
struct Recipe {
  std::string name;
  std::string kind;
  std::string licence;
  std::string output;
  std::string tokenizer;
  std::string chat_template;
  std::vector<SourceOptions> sources;
  CleanOptions clean;
  SplitOptions split;
  std::shared_ptr<const void> dataset_options;  // the Options of the dataset plugin `kind`

  std::filesystem::path path;  // of the recipe
  std::string text;            // of the recipe, as it stands in the file

  static void describe(Schema<Recipe>& s);
  /// Error with all mistakes at once, each with file:line:column.
  static Recipe parse(const config::Document& document, const Registry& registry);
  /// Paths in a recipe are relative to it.
  std::filesystem::path resolve(const std::string& relative) const { return (path.parent_path() / relative).lexically_normal(); }
};

}  // namespace attune
