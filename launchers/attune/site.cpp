#include "site.hpp"

#include "slurm/launch.hpp"
#include "slurm/script.hpp"

namespace attune::program {

slurm::Site chosen_site(const boost::program_options::variables_map& values) {
  const auto name = values.count("site") ? values["site"].as<std::string>() : slurm::environment_variable("ATTUNE_SITE");
  return name.empty() ? slurm::Site{} : slurm::read_site(name, slurm::site_folders());
}

std::string as_typed(const std::string& command, const std::vector<std::string>& arguments) {
  auto text = "attune " + command;
  for (const auto& argument : arguments)
    if (argument != "--print" && argument != "--wait") text += " " + slurm::shell_word(argument);
  return text;
}

}  // namespace attune::program
