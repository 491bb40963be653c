// Site files: settings for one cluster, so that run files are portable between clusters.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "config/slurm_options.hpp"

namespace attune::slurm {

struct SiteOptions {
  std::string about;
  OptionMap partitions;
  std::string scratch;
  std::vector<std::string> stage;
  std::int64_t max_array = 0;
  static void describe(Schema<SiteOptions>& s);

  bool stages(std::string_view what) const;
};

struct Site {
  std::filesystem::path file;  // empty if there is no site file
  SiteOptions options;
  config::SlurmOptions defaults;  // [slurm] of the site file: defaults for run files
};

/// Reads a site file, given as a path (contains '/' or ends in .toml) or as the name of a file in
/// `folders`. Reports all mistakes in one Error.
Site read_site(const std::string& name_or_file, const std::vector<std::filesystem::path>& folders);

/// Folders of site files: the user's (~/.config/attune/sites), then slurm/sites of the program's
/// source checkout or installation.
std::vector<std::filesystem::path> site_folders();

/// Options of a run file's [slurm] at this site. The run file takes precedence over the site, and
/// partition names are mapped to the site's.
config::SlurmOptions options_at(const Site& site, const config::Document& run_file);

}  // namespace attune::slurm
