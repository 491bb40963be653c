// The table of subcommands, one file each.
#include <torch/headeronly/version.h>

#include <iostream>
#include <optional>

#include "command.hpp"
#include "device/device.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "core/signals.hpp"
#include "placement/place.hpp"
#include "prepare/source.hpp"
#include "program.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

constexpr const Command* commands[] = {
    &prepare_command,  &check_command,  &plan_command,    &train_command,  &evaluate_command,
    &generate_command, &export_command, &inspect_command, &list_command,   &describe_command,
    &new_command,      &submit_command, &status_command,  &cancel_command, &logs_command,
    &sweep_command,    &doctor_command};

void print_help() {
  std::cout << "attune fine-tunes pre-trained models on one machine or on a cluster.\n\nUse: "
               "attune COMMAND ...\n\n";
  for (const auto* command : commands)
    std::cout << fmt::format("  {:<10} {}\n", command->name, command->summary);
  std::cout << "\n`attune COMMAND --help` shows the options of a command. To train on several "
               "ranks: mpirun -n 4 attune train run.toml\nExit codes: 0 success; 2 invalid input, "
               "with a suggested fix; 3 failure of the program or the system; 75 interrupted "
               "with\nits state saved, continue with --resume.\n";
}

void print_version() {
  std::cout << fmt::format("attune {} (LibTorch {} for {}, {} Parquet)\n", ATTUNE_VERSION,
                           TORCH_VERSION, device::build(), reads_parquet() ? "with" : "without");
}

const Command& find(const std::string& name) {
  std::vector<std::string> names;
  for (const auto* command : commands) {
    if (command->name == name) return *command;
    names.emplace_back(command->name);
  }
  fail("there is no command '{}'{} (the commands are: {})", name, did_you_mean(name, names),
       joined(names));
}

}  // namespace

std::optional<options::variables_map> parse(
    const Command& command, const std::vector<std::string>& arguments,
    options::options_description description,
    const std::vector<std::pair<std::string, int>>& positional) {
  options::options_description shown;
  options::positional_options_description positions;
  for (const auto& [name, count] : positional) positions.add(name.c_str(), count);
  for (const auto& option : description.options())
    if (positions.max_total_count() == 0 ||
        std::none_of(positional.begin(), positional.end(),
                     [&](const auto& p) { return p.first == option->long_name(); }))
      shown.add(option);
  shown.add_options()("help", "show this help");
  description.add_options()("help", "show this help");

  options::variables_map values;
  try {
    options::store(
        options::command_line_parser(arguments).options(description).positional(positions).run(),
        values);
    if (values.count("help")) {
      std::cout << "Use: attune " << command.name << " " << command.usage << "\n"
                << command.summary << "\n\n"
                << shown;
      return std::nullopt;
    }
    options::notify(values);
  } catch (const options::required_option& error) {
    auto name = error.get_option_name();
    name.erase(0, name.find_first_not_of('-'));
    fail("attune {}: give {}; use: attune {} {}", command.name, name, command.name, command.usage);
  } catch (const options::error& error) {
    fail("attune {}: {}; use: attune {} {}", command.name, error.what(), command.name,
         command.usage);
  }
  return values;
}

int run(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  let_writes_fail();
  try {
    placement::start_on_share(argv);
    const bool asks_help = arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
                           arguments[0] == "help";
    // attune help submit
    if (asks_help && arguments.size() > 1) return find(arguments[1]).run({"--help"});
    if (asks_help) {
      print_help();
      return 0;
    }
    if (arguments[0] == "--version") {
      print_version();
      return 0;
    }
    return find(arguments[0]).run({arguments.begin() + 1, arguments.end()});
  } catch (const Error& error) {
    std::cerr << "attune: " << error.what() << "\n";
    return static_cast<int>(ExitCode::user_mistake);
  } catch (const std::filesystem::filesystem_error& error) {
    std::cerr << "attune: " << sentence_of(error) << "\n";
    return static_cast<int>(ExitCode::user_mistake);
  } catch (const std::exception& error) {
    std::cerr << "attune: " << error.what() << "\n";
    return static_cast<int>(ExitCode::fault);
  } catch (...) {
    std::cerr << "attune: an object that is not a std::exception was thrown\n";
    return static_cast<int>(ExitCode::fault);
  }
}

}  // namespace attune::program
