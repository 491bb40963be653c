// attune prepare: raw files to one data file, by all ranks.
#include "prepare/prepare.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "command.hpp"
#include "config/document.hpp"
#include "core/files.hpp"
#include "core/names.hpp"
#include "data/card.hpp"
#include "parallel/mpi.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

void print_tallies(const char* what, const Tallies& tallies) {
  for (const auto& [reason, tally] : tallies)
    std::cout << fmt::format("{} {}: {} ({})\n", what, tally.count, reason,
                             joined(tally.examples, "; "));
}

void print_report(const PrepareReport& report) {
  std::cout << data_card(DataFile::open(report.output));
  print_tallies("changed", report.changed);
  print_tallies("dropped", report.rejected);
  std::cout << "\nwrote " << report.output.string() << "\n";
}

/// One line on a terminal, written over as the work goes on: rank 0's share of it.
class ProgressLine {
 public:
  ~ProgressLine() { clear(); }
  void show(const PrepareProgress& progress) {
    const auto now = Clock::now();
    if (stage_ != progress.stage) {
      stage_ = progress.stage;
      began_ = now;
      first_ = progress.done;
    } else if (now - shown_ < std::chrono::milliseconds(500))
      return;
    shown_ = now;
    clear();
    const auto seconds = std::chrono::duration<double>(now - began_).count();
    const bool bytes = stage_ == "reading";
    const auto speed =
        bytes && seconds > 0
            ? fmt::format(", {}/s",
                          human_bytes(static_cast<double>(progress.done - first_) / seconds))
            : "";
    fmt::print(stderr, "\r{} {:.0f} %, {} {}{}", stage_,
               100.0 * static_cast<double>(progress.done) /
                   static_cast<double>(std::max<std::uint64_t>(1, progress.all)),
               progress.records, stage_ == "encoding" ? "samples" : "records", speed);
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  void clear() const {
    if (!stage_.empty()) fmt::print(stderr, "\r\033[K");
  }
  std::string stage_;
  Clock::time_point began_;
  Clock::time_point shown_;
  std::uint64_t first_ = 0;
};

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("recipe", options::value<std::string>()->required(), "recipe")(
      "override", options::value<std::vector<std::string>>()->default_value({}, ""),
      "override of a recipe setting: section.key=value");
  const auto values =
      parse(prepare_command, arguments, description, {{"recipe", 1}, {"override", -1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    Registry registry;
    Recipe recipe;
    comm.agree([&] {
      load_plugins(registry, default_plugin_places());
      recipe = Recipe::parse(
          config::Document::parse((*values)["recipe"].as<std::string>(),
                                  (*values)["override"].as<std::vector<std::string>>()),
          registry);
    });
    place_ranks({.threads = 1}, comm);
    ProgressLine line;
    Watch watch;
    if (comm.root() && isatty(STDERR_FILENO))
      watch = [&](const PrepareProgress& progress) { line.show(progress); };
    const auto report = prepare(recipe, registry, comm, watch);
    on_root(comm, [&] { print_report(report); });
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command prepare_command{"prepare", "recipe.toml [section.key=value...]",
                              "converts raw files to one HDF5 data file and prints its data card",
                              run};

}  // namespace attune::program
