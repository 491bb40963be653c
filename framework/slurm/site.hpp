// A site file: what one cluster needs, so that a run file stays the same from cluster to cluster.
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
  std::filesystem::path file;  // empty: no site file
  SiteOptions options;
  config::SlurmOptions defaults;  // [slurm] of the site file: what a run file need not say here
};

/// A file (a name with '/' or ending in .toml), or the name of one among `folders`. All mistakes in
/// one Error.
Site read_site(const std::string& name_or_file, const std::vector<std::filesystem::path>& folders);

/// Folders of site files: the user's own (~/.config/attune/sites), then slurm/sites of the checkout
/// that the program is in, or of its installation.
std::vector<std::filesystem::path> site_folders();

/// The options of a run file's [slurm] at this site: the run file's own first, then the site's,
/// with partitions under their names here.
config::SlurmOptions options_at(const Site& site, const config::Document& run_file);

}  // namespace attune::slurm
