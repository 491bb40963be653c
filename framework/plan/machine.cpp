#include "plan/machine.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/document.hpp"
#include "core/files.hpp"
#include "core/names.hpp"

namespace attune::plan {
namespace fs = std::filesystem;
namespace {

struct Titles {
  std::string name;
  std::string source;
  static void describe(Schema<Titles>& s) {
    s.key("name", &Titles::name, "what plans call it");
    s.key("source", &Titles::source, "how and when it was measured, or where it was published");
  }
};

const std::vector<std::string> sections{"node", "alone", "together", "training", "between"};

std::vector<fs::path> folders() {
  const auto program = fs::read_symlink("/proc/self/exe").parent_path();
  return {program.parent_path() / "slurm/machines",
          program.parent_path() / "share/attune/machines"};
}

fs::path find_machine(const std::string& name) {
  if (name.find('/') != std::string::npos || name.ends_with(".toml")) {
    if (!fs::exists(name))
      fail(
          "{}: there is no such machine file: `attune doctor --write {}` makes one of the machine "
          "it runs on",
          name, name);
    return name;
  }
  std::vector<std::string> known;
  for (const auto& folder : folders()) {
    if (fs::exists(folder / (name + ".toml"))) return folder / (name + ".toml");
    if (!fs::is_directory(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".toml") known.push_back(entry.path().stem().string());
  }
  std::ranges::sort(known);
  fail("there is no machine '{}'{} (there are: {}); or name a file, such as ./machine.toml", name,
       did_you_mean(name, known), joined(known));
}

void check_rates(const fs::path& file, const Machine& machine) {
  for (const auto* rates : {&machine.alone, &machine.together})
    if (rates->float32 <= 0 || rates->memory <= 0)
      fail(
          "{}: [{}] needs float32 and memory, per second: measure them with `attune doctor "
          "--write`",
          file.string(), rates == &machine.alone ? "alone" : "together");
}

/// JSON's escapes are TOML's, too.
std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

std::string number(double value) { return fmt::format("{:.4g}", value); }

std::string rates_text(const char* section, const Rates& rates) {
  return fmt::format("[{}]\nfloat32 = {}\nbfloat16 = {}\nmemory = {}\nsums = {}\n", section,
                     number(rates.float32), number(rates.bfloat16), number(rates.memory),
                     number(rates.sums));
}

}  // namespace

void Rates::describe(Schema<Rates>& s) {
  s.key("float32", &Rates::float32,
        "multiplications and additions per second in products of float32 matrices")
      .at_least(0);
  s.key("bfloat16", &Rates::bfloat16, "the same of bfloat16 matrices; 0: as float32").at_least(0);
  s.key("memory", &Rates::memory, "bytes of memory read and written per second").at_least(0);
  s.key("sums", &Rates::sums,
        "bytes per second that ranks of one node send in a sum over them; 0: unknown")
      .at_least(0);
}

void NodeOptions::describe(Schema<NodeOptions>& s) {
  s.key("ranks", &NodeOptions::ranks, "ranks of a node; with GPUs one for each").range(1, 4096);
  s.key("memory", &NodeOptions::memory, "bytes of memory of a node").above(0);
  s.key("gpu_memory", &NodeOptions::gpu_memory, "bytes of a GPU; 0: ranks compute on CPUs")
      .at_least(0);
  s.key("program", &NodeOptions::program, "bytes that a rank holds without a model").at_least(0);
}

void BetweenOptions::describe(Schema<BetweenOptions>& s) {
  s.key("sums", &BetweenOptions::sums,
        "bytes per second that a node sends to another in a sum; 0: unknown")
      .at_least(0);
  s.key("message", &BetweenOptions::message, "seconds of a small message between nodes")
      .at_least(0);
}

void TrainingOptions::describe(Schema<TrainingOptions>& s) {
  s.key("operation", &TrainingOptions::operation, "seconds in which an operator starts")
      .at_least(0);
  s.key("message", &TrainingOptions::message, "seconds of a small message within a node")
      .at_least(0);
  s.key("hidden", &TrainingOptions::hidden,
        "share of the time of a sum that passes while ranks compute")
      .range(0, 1);
  s.key("reached", &TrainingOptions::reached,
        "share of the rates that training reaches: below 1 for rates that makers publish")
      .range(0.01, 1);
  s.key("disk", &TrainingOptions::disk, "bytes per second that a rank reads; 0: unknown")
      .at_least(0);
}

double Machine::of_rank(double Rates::* rate, std::int64_t ranks) const {
  return std::min(alone.*rate, together.*rate / static_cast<double>(ranks));
}

Machine read_machine(const std::string& name_or_file) {
  const auto file = find_machine(name_or_file);
  const auto document = config::Document::parse(file);
  Machine machine;
  Titles titles;
  config::Problems problems;
  const auto bind = [&]<class Options>(const char* name, Options& options) {
    config::bind_options(config::section(document.root, name, problems), describe<Options>(),
                         &options, problems);
  };
  config::bind_options(document.root, describe<Titles>(), &titles, problems, sections);
  bind("node", machine.node);
  bind("alone", machine.alone);
  bind("together", machine.together);
  bind("training", machine.training);
  bind("between", machine.between);
  problems.throw_if_any();
  machine.name = titles.name.empty() ? file.stem().string() : titles.name;
  machine.source = titles.source;
  check_rates(file, machine);
  return machine;
}

void write_machine(const fs::path& file, const Machine& m) {
  write_text(
      file,
      fmt::format("# A machine for `attune plan`: docs/plan.md. Bytes, seconds, and rates "
                  "per second.\n"
                  "name = {}\nsource = {}\n\n"
                  "[node]\nranks = {}\nmemory = {}\ngpu_memory = {}\nprogram = {}\n\n"
                  "# of one rank while the others wait; of sums: of each of two\n{}\n"
                  "# of all ranks of a node at the same time, added up\n{}\n"
                  "[training]\noperation = {}\nmessage = {}\nhidden = {:.2f}\nreached = "
                  "{:.2f}\ndisk = {}\n\n"
                  "# 0: not measured, on one node\n[between]\nsums = {}\nmessage = {}\n",
                  quoted(m.name), quoted(m.source), m.node.ranks, number(m.node.memory),
                  number(m.node.gpu_memory), number(m.node.program), rates_text("alone", m.alone),
                  rates_text("together", m.together), number(m.training.operation),
                  number(m.training.message), m.training.hidden, m.training.reached,
                  number(m.training.disk), number(m.between.sums), number(m.between.message)));
}

}  // namespace attune::plan
