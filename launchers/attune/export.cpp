// attune export: an adapter in PEFT's layout, or a whole model in that of Hugging Face; from a run,
// or from any model file.
#include <iostream>

#include "command.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"
#include "run_directory/places.hpp"
#include "train/publish.hpp"
#include "tuned_run.hpp"
#include "weights/export_folder.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

void export_model(const std::string& model, const std::string& to) {
  auto files = ModelFiles::open(model);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& info : files.weights->tensors())
    tensors.emplace_back(info.name, files.weights->read(info.name));
  export_model_folder(to, files, model, files.config, to_write(tensors));
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("source", options::value<std::string>()->required(),
                            "run directory or model")(
      "to", options::value<std::string>()->required(), "output folder to create")(
      "merge", options::bool_switch(),
      "merge the adapter into the base model and export the whole model")(
      "checkpoint", options::value<std::string>()->default_value("latest"),
      "checkpoint of the run: latest, best, or a step");
  const auto values = parse(export_command, arguments, description, {{"source", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const auto source = (*values)["source"].as<std::string>();
  const auto to = (*values)["to"].as<std::string>();
  return on_ranks([&](const Comm& comm) {
    if (run_directory::is_run_directory(source)) {
      auto tuned = open_tuned_run(source, (*values)["checkpoint"].as<std::string>(), comm,
                                  {"parallel.device=cpu"});  // an export needs no other
      tuned.load_tuned();
      train::identify_base(tuned.session);
      train::publish(tuned.session, to, (*values)["merge"].as<bool>());
    } else {
      on_root(comm, [&] { export_model(source, to); });
    }
    if (comm.root()) std::cout << "exported to " << to << "\n";
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command export_command{
    "export", "RUN_DIR|MODEL --to DIR [--merge] [--checkpoint latest|best|STEP]",
    "exports an adapter (PEFT) or a whole model in Hugging Face layout", run};

}  // namespace attune::program
