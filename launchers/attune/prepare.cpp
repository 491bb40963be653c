// attune prepare: raw files to one data file, by all ranks.
#include "prepare/prepare.hpp"

#include <iostream>

#include "command.hpp"
#include "config/document.hpp"
#include "data/card.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

void print_report(const PrepareReport& report) {
  std::cout << data_card(DataFile::open(report.output));
  for (const auto& [reason, rejection] : report.rejected) {
    std::cout << fmt::format("dropped {}: {} (", rejection.count, reason);
    for (std::size_t i = 0; i < rejection.examples.size(); ++i) std::cout << (i ? "; " : "") << rejection.examples[i];
    std::cout << ")\n";
  }
  std::cout << "\nwrote " << report.output.string() << "\n";
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("recipe", options::value<std::string>()->required(), "recipe")("override", options::value<std::vector<std::string>>()->default_value({}, ""), "key=value");
  const auto values = parse(prepare_command, arguments, description, {{"recipe", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    Registry registry;
    Recipe recipe;
    comm.agree([&] {
      load_plugins(registry, default_plugin_places());
      recipe = Recipe::parse(config::Document::parse((*values)["recipe"].as<std::string>(), (*values)["override"].as<std::vector<std::string>>()), registry);
    });
    const auto report = prepare(recipe, registry, comm);
    on_root(comm, [&] { print_report(report); });
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command prepare_command{"prepare", "recipe.toml [section.key=value...]", "makes one data file (HDF5) from raw files, and prints its card", run};

}  // namespace attune::program
