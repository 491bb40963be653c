// attune evaluate: base against tuned on the same held-out samples.
#include "evaluate/evaluate.hpp"

#include <iostream>

#include "command.hpp"
#include "device.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"
#include "run_directory/evaluation.hpp"
#include "train/base_evaluation.hpp"
#include "train/metrics.hpp"
#include "train/run_context.hpp"
#include "tuned_run.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

int evaluate_run(const Comm& comm, const options::variables_map& values) {
  auto run = open_tuned_run(values["run"].as<std::string>(), values["checkpoint"].as<std::string>(),
                            comm, values["override"].as<std::vector<std::string>>());
  refuse_idle_gpus(run.opened.config, comm);
  const auto split_name = values["split"].as<std::string>();
  std::optional<std::int64_t> wanted;
  if (values.count("samples")) wanted = values["samples"].as<std::int64_t>();
  auto& s = run.session;
  const auto& split = s.data->split(split_name);
  const auto samples = samples_to_evaluate(split, wanted.value_or(s.config.evaluate.samples));
  std::int64_t without_target = 0;
  const auto measured = [&](bool base_alone) {
    const EvaluateOn on{
        split,      samples,        s.config.evaluate.micro_batch, [] { return false; },
        base_alone, &without_target};
    return evaluate(*s.model, *s.strategies, *s.dataset, on, s.mesh, s.device).value();
  };

  auto context = train::SessionContext::measurement(s, {split_name, train::first_rows(samples)});
  s.strategies->begin(*s.model, context.run());
  const auto base = [&] {
    const train::UntrainedBase untrained(s);
    return measured(/*base_alone=*/true);
  }();
  run.load_tuned();
  const Comparison found{train::declared_metrics(s), base, measured(/*base_alone=*/false)};
  on_root(comm, [&] {
    if (without_target > 0)
      fmt::print(stderr, "warning: {} of the {} samples have no target and are skipped\n",
                 without_target, samples);
    run_directory::write_evaluation(run.directory,
                                    {split_name, samples, found.base, found.tuned, found.declared});
    std::cout << run.directory.string() << ", " << run.checkpoint.filename().string() << ", "
              << samples << " samples of '" << split_name << "'\n"
              << comparison_table(found);
  });
  return static_cast<int>(ExitCode::done);
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("run", options::value<std::string>()->required(),
                            "run file or run directory")(
      "override", options::value<std::vector<std::string>>()->default_value({}, ""),
      "override of a run file setting, such as the data: section.key=value")(
      "split", options::value<std::string>()->default_value("validation"), "split to evaluate on")(
      "samples", options::value<std::int64_t>(),
      "number of samples from the start of the split; 0: all; default: evaluate.samples of the run "
      "file")("checkpoint", options::value<std::string>()->default_value("latest"),
              "checkpoint of the run: latest, best, or a step");
  const auto values =
      parse(evaluate_command, arguments, description, {{"run", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) { return evaluate_run(comm, *values); });
}

}  // namespace

const Command evaluate_command{"evaluate",
                               "RUN_DIR|run.toml [section.key=value...] [--split NAME] [--samples "
                               "N] [--checkpoint latest|best|STEP]",
                               "compares the base and the tuned model on held-out samples", run};

}  // namespace attune::program
