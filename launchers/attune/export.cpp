// attune export: an adapter in PEFT's layout, or a whole model in that of Hugging Face; from a run,
// or from any model file.
#include <attune/error.hpp>

#include <algorithm>
#include <cstdlib>
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
#include "weights/shapes.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

/// "5GB", as huggingface_hub reads it: units of 1000, or, with an i, of 1024.
std::uint64_t bytes_of_size(const std::string& text) {
  constexpr std::pair<const char*, double> units[] = {
      {"KB", 1e3},      {"MB", 1e6},      {"GB", 1e9},      {"TB", 1e12},
      {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1ULL << 40}};
  char* end = nullptr;
  const bool is_plain = text.find_first_not_of("0123456789.") == text.find_first_of("KMGT");
  const double number = std::strtod(text.c_str(), &end);
  const auto unit = std::ranges::find(
      units, std::string_view(end), [](const auto& each) { return std::string_view(each.first); });
  if (unit == std::end(units) || !is_plain || number * unit->second < 1 ||
      number * unit->second > 1e18)
    fail("--max-shard-size {}: is no size; give a number and a unit, such as 5GB or 500MiB", text);
  return static_cast<std::uint64_t>(number * unit->second);
}

/// Tensor by tensor.
void export_model(const std::string& model, const std::string& to, std::uint64_t largest_file) {
  auto files = ModelFiles::open(model);
  Shapes shapes(*files.weights);
  std::vector<TensorToWrite> tensors;
  for (const auto& info : files.weights->tensors())
    tensors.push_back({info.name, info.shape, shapes.read(info.name).scalar_type(),
                       [&, name = info.name] { return files.weights->read(name); }});
  export_model_folder(to, files, model, files.config, tensors, {}, largest_file);
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("source", options::value<std::string>()->required(),
                            "run directory or model")(
      "to", options::value<std::string>()->required(), "output folder to create")(
      "merge", options::bool_switch(),
      "merge the adapter into the base model and export the whole model")(
      "checkpoint", options::value<std::string>()->default_value("latest"),
      "checkpoint of the run: latest, best, or a step")(
      "max-shard-size", options::value<std::string>()->default_value("50GB"),
      "largest file of a whole model's weights; what is more goes into further files");
  const auto values = parse(export_command, arguments, description, {{"source", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  const auto source = (*values)["source"].as<std::string>();
  const auto to = (*values)["to"].as<std::string>();
  const auto largest_file = bytes_of_size((*values)["max-shard-size"].as<std::string>());
  return on_ranks([&](const Comm& comm) {
    if (run_directory::is_run_directory(source)) {
      auto tuned = open_tuned_run(source, (*values)["checkpoint"].as<std::string>(), comm,
                                  {"parallel.device=cpu"});  // an export needs no other
      tuned.load_tuned();
      train::identify_base(tuned.session);
      train::publish(tuned.session, to, (*values)["merge"].as<bool>(), largest_file);
    } else {
      on_root(comm, [&] { export_model(source, to, largest_file); });
    }
    if (comm.root()) std::cout << "exported to " << to << "\n";
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command export_command{
    "export",
    "RUN_DIR|MODEL --to DIR [--merge] [--checkpoint latest|best|STEP] [--max-shard-size SIZE]",
    "exports an adapter (PEFT) or a whole model in Hugging Face layout", run};

}  // namespace attune::program
