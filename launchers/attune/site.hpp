// What the commands that submit jobs share.
#pragma once
#include <boost/program_options.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "slurm/site.hpp"

namespace attune::program {

inline constexpr const char* site_option = "site file, or its name in slurm/sites; without it the one in ATTUNE_SITE, or none";

/// The site of --site or ATTUNE_SITE; one without a file when neither is given.
slurm::Site chosen_site(const boost::program_options::variables_map& values);

/// This program, the library it runs with, and its folder of plugins: what a site may have copied to the nodes.
std::vector<std::filesystem::path> program_files();

/// "attune submit run.toml train.steps=5", without what only says where the script goes.
std::string as_typed(const std::string& command, const std::vector<std::string>& arguments);

}  // namespace attune::program
