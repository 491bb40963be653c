// Validation of TOML files against declared options. All mistakes are collected, with
// file:line:column and the nearest valid name, and reported together.
#pragma once
#include <attune/schema.hpp>
#include <toml++/toml.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "config/setting.hpp"

namespace attune::config {

/// A parsed file with command-line overrides ("train.learning_rate=1e-4") applied.
struct Document {
  toml::table root;
  std::filesystem::path path;
  // to which relative paths of the file refer; empty: the current folder. Paths of the command line
  // always refer to the current folder.
  std::filesystem::path folder = {};

  /// Error with file:line:column for invalid TOML, or for an override that is not key=value.
  static Document parse(const std::filesystem::path& path,
                        const std::vector<std::string>& overrides = {});
  /// Parses text that is not in a file; `path` is used in messages.
  static Document parse_text(const std::string& text, const std::filesystem::path& path,
                             const std::vector<std::string>& overrides = {});
};

/// Collects mistakes.
class Problems {
 public:
  /// Suggests another place for a key: "it belongs to [train]", or "".
  using Elsewhere = std::function<std::string(const std::string& key)>;
  void look_elsewhere(Elsewhere elsewhere) { elsewhere_ = std::move(elsewhere); }
  /// Adds an unknown key, with the nearest known key and the suggestion of look_elsewhere().
  void add_unknown(const toml::key& key, const std::vector<std::string>& known);

  void add(const toml::source_region& where, std::string text);
  /// Throws one Error with a line per mistake, in file order, if there are any.
  void throw_if_any() const;

 private:
  struct Problem {
    std::string file;
    toml::source_position position;
    std::string text;
  };
  std::vector<Problem> problems_;
  Elsewhere elsewhere_;
};

/// The unknown key of the table that is probably a misspelling of `wanted`; nullptr if there is
/// none.
const toml::key* misspelled(const toml::table& table, const std::string& wanted,
                            const std::vector<std::string>& known);

/// The names of all options in a schema.
std::vector<std::string> names_of(const OptionSet& schema);

/// The table root[name]; an empty table if it is absent. Adds a problem if it is not a table.
const toml::table& section(const toml::table& root, std::string_view name, Problems& problems);

/// Sets the members of the options struct at `object` from the table. Adds a problem for each
/// unknown key (except those in handled_elsewhere), wrong type, value out of range and missing
/// required key. A single text is accepted as a list of one. Paths are set as this process reaches
/// them; `folder`: see Document.
void bind_options(const toml::table& table, const OptionSet& schema, void* object,
                  Problems& problems, const std::vector<std::string>& handled_elsewhere = {},
                  const std::filesystem::path& folder = {});

/// Whether a value was given on the command line.
bool is_from_command_line(const toml::node& node);

/// A path of a document with that folder, as this process reaches it. A path that is only found
/// from the current folder is unchanged: the folder was moved together with what it contained.
std::string reached_from(const std::filesystem::path& folder, const std::string& path);

/// The effective values of all declared options. otherwise: the role of options that declare none.
/// as_written: paths are listed as the file has them, else as this process reaches them.
std::vector<Setting> settings(const toml::table& table, const OptionSet& schema, const void* object,
                              OptionRole otherwise = OptionRole::setting, bool as_written = true);

}  // namespace attune::config
