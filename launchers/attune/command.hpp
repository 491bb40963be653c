// A subcommand of the program: one file each.
#pragma once
#include <attune/error.hpp>

#include <boost/program_options.hpp>
#include <optional>
#include <string>
#include <vector>

namespace attune::program {

struct Command {
  const char* name;
  const char* usage;    // after "attune NAME": "run.toml [key=value...] [--resume]"
  const char* summary;  // one line
  /// arguments: those after the command's name. Returns the exit code; the user's mistakes are
  /// thrown as attune::Error.
  int (*run)(const std::vector<std::string>& arguments);
};

extern const Command prepare_command, check_command, train_command, evaluate_command,
    generate_command, export_command, inspect_command, list_command, describe_command, new_command,
    submit_command, status_command, cancel_command, logs_command, sweep_command, doctor_command,
    plan_command;

/// Parses with Boost.Program_options; positional arguments go to `positional` by name (the last may
/// repeat). --help prints and returns no value. Mistakes become Errors that name the command.
std::optional<boost::program_options::variables_map> parse(
    const Command& command, const std::vector<std::string>& arguments,
    boost::program_options::options_description options,
    const std::vector<std::pair<std::string, int>>& positional);

}  // namespace attune::program
