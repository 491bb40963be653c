// TOML files against declared options: every mistake is collected with file:line:column and the
// nearest valid name, and all are reported at once.
#pragma once
#include <attune/schema.hpp>
#include <toml++/toml.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "config/setting.hpp"

namespace attune::config {

/// A parsed file with command-line overrides ("train.learning_rate=1e-4") laid over it.
struct Document {
  toml::table root;
  std::filesystem::path path;

  /// Error with file:line:column when it is not TOML, or when an override is not key=value.
  static Document parse(const std::filesystem::path& path,
                        const std::vector<std::string>& overrides = {});
  /// The text of a file that is not there as such.
  static Document parse_text(const std::string& text, const std::filesystem::path& path,
                             const std::vector<std::string>& overrides = {});
};

/// Mistakes found so far.
class Problems {
 public:
  /// Where else a key belongs: "it belongs to [train]", or "".
  using Elsewhere = std::function<std::string(const std::string& key)>;
  void look_elsewhere(Elsewhere elsewhere) { elsewhere_ = std::move(elsewhere); }
  /// A key that has no place where it stands, with the nearest that has, and where else it belongs.
  void add_unknown(const toml::key& key, const std::vector<std::string>& known);

  void add(const toml::source_region& where, std::string text);
  /// One Error with a line for each, in the file's order.
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

/// The key of the table that is no known one and nearest to the wanted one, as a misspelling is;
/// nullptr when there is none.
const toml::key* misspelled(const toml::table& table, const std::string& wanted,
                            const std::vector<std::string>& known);

/// The names of a set of options.
std::vector<std::string> names_of(const OptionSet& schema);

/// The table root[name]; an empty one when absent; a problem and an empty one when it is no table.
const toml::table& section(const toml::table& root, std::string_view name, Problems& problems);

/// Sets the members of the options struct at `object` from the table. Unknown keys (but for those
/// handled elsewhere), wrong types, values out of range and missing required keys become problems.
/// A single text serves as a list of one.
void bind_options(const toml::table& table, const OptionSet& schema, void* object,
                  Problems& problems, const std::vector<std::string>& handled_elsewhere = {});

/// The table's effective values, one for each declared option. otherwise: the role of those that
/// declare none.
std::vector<Setting> settings(const toml::table& table, const OptionSet& schema, const void* object,
                              OptionRole otherwise = OptionRole::setting);

}  // namespace attune::config
