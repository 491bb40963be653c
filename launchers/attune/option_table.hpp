// Declared options as tables: for the terminal, for the reference page, and as a piece of a run
// file.
#pragma once
#include <attune/registry.hpp>

#include <string>
#include <vector>

namespace attune::program {

using Row = std::vector<std::string>;

/// Columns two spaces apart, each as wide as its widest cell; the first row is the head.
std::string text_table(const std::vector<Row>& rows);
std::string markdown_table(const std::vector<Row>& rows);

/// A head and one row per option: name, type, default, what it accepts, what it is for.
std::vector<Row> option_rows(const OptionSet& schema);

/// The plugin with its defaults, as it would stand in a run file; required options are left to fill
/// in.
std::string toml_snippet(const Registry::Entry& entry);

}  // namespace attune::program
