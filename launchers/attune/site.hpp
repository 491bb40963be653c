// What the commands that submit jobs share.
#pragma once
#include <boost/program_options.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "slurm/site.hpp"
#include "train/memory.hpp"

namespace attune::program {

inline constexpr const char* site_option =
    "site file, or the name of one in ~/.config/attune/sites or slurm/sites; default: ATTUNE_SITE, "
    "else none";

/// The site of --site or ATTUNE_SITE; one without a file when neither is given.
slurm::Site chosen_site(const boost::program_options::variables_map& values);

/// What the environment says and the run file leaves open is taken over into the options. Returns
/// what to tell of that.
std::vector<std::string> options_of_environment(config::SlurmOptions& options);

/// What to tell when slurm.memory is less than the ranks of a node hold in one of the runs, and
/// they hold more.
std::vector<std::string> small_memory(const config::SlurmOptions& options,
                                      const std::vector<train::HostMemory>& runs);

/// Error when the run would leave the GPUs idle that are asked for.
void check_gpus(const config::SlurmOptions& options, const config::ParallelOptions& parallel);

/// What is wrong with a job for GPUs that this program's LibTorch was not built for.
std::vector<std::string> wrong_build(const config::SlurmOptions& options,
                                     const config::ParallelOptions& parallel);
/// Error in that case.
void refuse_wrong_build(const config::SlurmOptions& options,
                        const config::ParallelOptions& parallel);

/// What to tell when a run on a GPU asks for none.
std::vector<std::string> missing_gpus(const config::SlurmOptions& options,
                                      const config::ParallelOptions& parallel);

/// Notes to stderr.
void tell(const std::vector<std::string>& notes);

/// This program, the library it runs with, and its folder of plugins: what a site may have copied
/// to the nodes.
std::vector<std::filesystem::path> program_files();

/// "attune submit run.toml train.steps=5", without what only says where the script goes.
std::string as_typed(const std::string& command, const std::vector<std::string>& arguments);

}  // namespace attune::program
