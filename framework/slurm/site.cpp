#include "slurm/site.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <cstdlib>

#include "core/names.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;

void SiteOptions::describe(Schema<SiteOptions>& s) {
  s.key("about", &SiteOptions::about, "description of the cluster");
  s.key("partitions", &SiteOptions::partitions,
        "partition names in run files and their names on this cluster: { gpu = \"accelerated\" }");
  s.key("scratch", &SiteOptions::scratch,
        "folder on a node-local disk, such as \"$TMPDIR\" or \"/scratch/$SLURM_JOB_ID\"; empty: no "
        "local disk");
  s.key("stage", &SiteOptions::stage,
        "what to copy to `scratch` once per node before a run: \"data\", \"model\", \"program\"");
  s.key("max_array", &SiteOptions::max_array,
        "maximum size of a job array; 0: the limit that Slurm reports")
      .at_least(0);
}

bool SiteOptions::stages(std::string_view what) const {
  return std::find(stage.begin(), stage.end(), what) != stage.end();
}

namespace {

fs::path find_site(const std::string& name, const std::vector<fs::path>& folders) {
  if (name.find('/') != std::string::npos || name.ends_with(".toml")) {
    if (!fs::exists(name))
      fail("{}: there is no such site file: correct --site, or ATTUNE_SITE in the environment",
           name);
    return name;
  }
  std::vector<std::string> known;
  std::vector<std::string> places;
  for (const auto& folder : folders) {
    places.push_back(folder.string());
    if (!fs::is_directory(folder)) continue;
    if (fs::exists(folder / (name + ".toml"))) return folder / (name + ".toml");
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".toml") known.push_back(entry.path().stem().string());
  }
  fail(
      "there is no site '{}'{} ({}; looked for in {}); name a file instead, such as "
      "./my-cluster.toml",
      name, did_you_mean(name, known),
      known.empty() ? "no site files were found" : "there are: " + joined(known), joined(places));
}

/// Where a key belongs that is unknown where it stands.
std::string where_is(const std::string& key) {
  const auto has = [&](const OptionSet& schema) {
    return std::ranges::find(schema.options, key, &Option::name) != schema.options.end();
  };
  if (has(describe<config::SlurmOptions>())) return fmt::format("'{}' belongs to [slurm]", key);
  return has(describe<SiteOptions>())
             ? fmt::format("'{}' belongs to the top of the site file, before [slurm]", key)
             : "";
}

void check_stage(const toml::table& root, const SiteOptions& options, config::Problems& problems) {
  for (const auto& what : options.stage)
    if (what != "data" && what != "model" && what != "program")
      problems.add(
          root.get("stage")->source(),
          fmt::format(
              "'stage' contains '{}', but may contain only \"data\", \"model\" and \"program\"",
              what));
  if (!options.stage.empty() && options.scratch.empty())
    problems.add(root.get("stage")->source(), "'stage' needs 'scratch', the folder to copy to");
}

}  // namespace

Site read_site(const std::string& name_or_file, const std::vector<fs::path>& folders) {
  Site site;
  site.file = find_site(name_or_file, folders);
  const auto document = config::Document::parse(site.file);
  config::Problems problems;
  problems.look_elsewhere(where_is);
  config::bind_options(document.root, describe<SiteOptions>(), &site.options, problems, {"slurm"});
  config::bind_slurm(config::section(document.root, "slurm", problems), site.defaults, problems);
  check_stage(document.root, site.options, problems);
  problems.throw_if_any();
  return site;
}

std::vector<fs::path> site_folders() {
  const auto program = fs::read_symlink("/proc/self/exe").parent_path();
  const auto* configuration = std::getenv("XDG_CONFIG_HOME");
  const auto* home = std::getenv("HOME");
  const auto own = configuration && *configuration ? fs::path(configuration)
                                                   : fs::path(home ? home : "") / ".config";
  return {own / "attune/sites", program.parent_path() / "slurm/sites",
          program.parent_path() / "share/attune/sites"};
}

config::SlurmOptions options_at(const Site& site, const config::Document& run_file) {
  auto options = site.defaults;
  config::Problems problems;
  config::bind_slurm(config::section(run_file.root, "slurm", problems), options, problems);
  problems.throw_if_any();
  const auto here = site.options.partitions.find(options.partition);
  if (here != site.options.partitions.end()) options.partition = here->second;
  return options;
}

}  // namespace attune::slurm
