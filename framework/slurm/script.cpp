#include "slurm/script.hpp"

#include <fmt/core.h>

#include <regex>

#include "core/names.hpp"

namespace attune::slurm {
namespace {

using config::SlurmOptions;

/// A value of #SBATCH: sbatch takes the quotes away.
std::string directive_value(const std::string& value) {
  static const std::regex plain("[A-Za-z0-9_@%+=:,./*&|()\\[\\]!~^-]*");
  if (std::regex_match(value, plain)) return value;
  std::string text = "\"";
  for (const char c : value) text += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
  return text + "\"";
}

/// Quoted, so that the shell still puts in $NAMES.
std::string expanded(const std::string& text) { return "\"" + std::regex_replace(text, std::regex("[\"\\\\`]"), "\\$&") + "\""; }

class Script {
 public:
  explicit Script(const Job& job) : job_(job), o_(job.options), srun_(o_.launcher == "srun") {}

  std::string text() {
    head();
    directives();
    surroundings();
    attempts();
    launch();
    again();
    return std::move(text_);
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> text, Args&&... args) {
    text_ += fmt::format(text, std::forward<Args>(args)...) + "\n";
  }

  void head() {
    line("#!/bin/bash");
    line("# Trains {}, and goes on by itself until it is done. Written by: {}", job_.array ? fmt::format("{} runs", job_.array->size) : "'" + job_.name + "'", job_.written_by);
    line("# To be edited as you like, and submitted again with: sbatch {}", shell_word(job_.script.string()));
  }

  // ---- #SBATCH

  void directive(const std::string& name, const std::string& value) {
    if (!value.empty()) line("#SBATCH --{}={}", name, directive_value(value));
  }

  void directives() {
    directive("job-name", job_.name);
    directive("nodes", std::to_string(o_.nodes));
    directive("ntasks-per-node", std::to_string(o_.tasks_per_node));
    directive("cpus-per-task", std::to_string(o_.cpus_per_task));
    if (o_.gpus_per_node > 0) directive("gpus-per-node", std::to_string(o_.gpus_per_node));
    for (const auto& [name, value] : {std::pair{"mem", &o_.memory}, {"time", &o_.time}, {"partition", &o_.partition}, {"account", &o_.account}, {"qos", &o_.qos},
                                      {"constraint", &o_.constraint}, {"reservation", &o_.reservation}, {"dependency", &o_.dependency}, {"mail-type", &o_.mail_type}, {"mail-user", &o_.mail_user}})
      directive(name, *value);
    if (const auto& array = job_.array) directive("array", array->elements);
    directive("output", job_.log.string());
    line("# An attempt writes on where the last one ended; Slurm may put the job back into the queue.");
    line("#SBATCH --open-mode=append");
    line("#SBATCH --requeue");
    line("# {} seconds before the time limit (Slurm may be half a minute early) {}.", o_.signal,
         srun_ ? "every rank gets SIGTERM, saves and ends with 75" : "this script gets SIGUSR1 and hands it on: every rank saves and ends with 75");
    line("#SBATCH --signal={}@{}", srun_ ? "TERM" : "B:USR1", o_.signal);
    for (const auto& [name, value] : o_.options)  // the last word is the user's
      if (value.empty()) line("#SBATCH --{}", name);
      else directive(name, value);
  }

  // ---- What comes before the ranks

  void surroundings() {
    line("");
    line("attune={}", shell_word(job_.program.string()));
    if (job_.array) {
      line("job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID");
      if (job_.array->list.empty()) line("run={}-$SLURM_ARRAY_TASK_ID", shell_word(job_.directory.string()));
      else line("run=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {})", shell_word(job_.array->list.string()));
    } else {
      line("job=$SLURM_JOB_ID");
      line("run={}", shell_word(job_.directory.string()));
    }
    if (!o_.modules.empty()) line("module load {}", joined(o_.modules, " "));
    for (const auto& [name, value] : o_.environment) line("export {}={}", name, expanded(value));
    line("export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK{}", srun_ ? " SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" : "");
    if (!job_.site.options.stage.empty()) {
      line("# {} copied there once per node, and removed at the end.", job_.site.options.stage.size() == 2 ? "Data and model are" : job_.site.options.stage[0] == "data" ? "The data are" : "The model is");
      line("export ATTUNE_SCRATCH={} ATTUNE_STAGE={}", expanded(job_.site.options.scratch), joined(job_.site.options.stage, ","));
    }
    for (const auto& text : o_.lines) line("{}", text);
  }

  void attempts() {
    line("");
    line("# Every attempt notes the newest checkpoint it starts from. When {} in a row have saved no newer one, another will not either.", o_.stalled);
    line("mkdir -p \"$run\"");
    line("newest=$(find \"$run/checkpoints\" -maxdepth 1 -name 'step-*' -printf '%f\\n' 2>/dev/null | sort | tail -n 1)");
    line("echo \"$(date +%FT%T) job=$job restart=${{SLURM_RESTART_COUNT:-0}} ${{newest:-none}}\" >>\"$run/attempts\"");
    line("count=$(wc -l <\"$run/attempts\")");
    line("moves=$(tail -n {} \"$run/attempts\" | awk '{{ print $NF }}' | uniq | wc -l)", o_.stalled + 1);
    line("if [ \"$count\" -gt {} ] && [ \"$moves\" -eq 1 ]; then", o_.stalled);
    line("  echo \"{} attempts made no progress, from ${{newest:-the beginning}}: see above for why; the job ends here\"", o_.stalled);
    line("  exit 1");
    line("fi");
  }

  void launch() {
    auto train = fmt::format("\"$attune\" train \"$run/run.toml\" --resume");
    for (const auto& option : job_.train_options) train += " " + shell_word(option);
    line("");
    line("# From the newest whole checkpoint, or from the beginning when there is none.");
    if (srun_) {
      line("# A signal to the job reaches this script too: it waits for the ranks to save. When one rank dies, the others are ended.");
      line("trap : TERM");
      line("srun --mpi={} --kill-on-bad-exit=1 {}", o_.mpi, train);
      line("code=$?");
    } else {
      line("mpirun --bind-to none {} &", train);
      line("ranks=$!");
      line("trap 'kill -USR1 \"$ranks\"' USR1");
      line("wait \"$ranks\"");
      line("code=$?");
      line("if [ \"$code\" -eq 138 ]; then  # 128 + SIGUSR1: the signal ended the wait, not the ranks");
      line("  wait \"$ranks\"");
      line("  code=$?");
      line("fi");
    }
  }

  // ---- What comes after them

  void again() {
    line("");
    line("# 75: interrupted, the state is saved. Any other failure is tried again only when it is not the run's own.");
    line("told() {{ scontrol -o show job \"$job\" | tr ' ' '\\n' | sed -n \"s/^$1=//p\" | head -n 1; }}");
    line("preempted() {{ [[ $(told PreemptTime) = [0-9]* ]]; }}");
    line("node_lost() {{ ! timeout 60 srun --overlap --nodes=\"$SLURM_JOB_NUM_NODES\" --ntasks=\"$SLURM_JOB_NUM_NODES\" --ntasks-per-node=1 true; }}");
    if (o_.retries > 0) line("failures() {{ cat \"$run/failures\" 2>/dev/null || echo 0; }}");
    line("queue_again() {{");
    line("  if [ \"$count\" -gt {} ]; then echo \"this was attempt $count: the job ends here, see slurm.restarts\"; exit \"$code\"; fi", o_.restarts);
    line("  # What you cancelled, or Slurm takes back by itself, is ending already.");
    line("  if [ \"$(told JobState)\" != RUNNING ] && [ \"$(told Reason)\" != TimeLimit ]; then exit \"$code\"; fi");
    line("  if [ \"$(told Requeue)\" = 1 ] && scontrol requeue \"$job\"; then exit \"$code\"; fi");
    line("  # Where requeueing is not allowed, the same again as a new job.");
    line("  sbatch --dependency=\"afterany:$job\"{} {}", job_.array ? " --array=\"$SLURM_ARRAY_TASK_ID\"" : "", shell_word(job_.script.string()));
    line("}}");
    line("case $code in");
    line("  0 | 2) ;;  # done, or a mistake in the run file");
    line("  75) queue_again ;;");
    line("  *)");
    line("    if preempted || node_lost; then queue_again; fi");
    if (o_.retries > 0) {
      line("    if [ \"$(failures)\" -lt {} ]; then", o_.retries);
      line("      echo $(($(failures) + 1)) >\"$run/failures\"");
      line("      queue_again");
      line("    fi");
    }
    line("    ;;");
    line("esac");
    line("exit \"$code\"");
  }

  const Job& job_;
  const SlurmOptions& o_;
  bool srun_;
  std::string text_;
};

}  // namespace

std::string shell_word(const std::string& text) {
  static const std::regex plain("[A-Za-z0-9_@%+=:,./-]+");
  if (std::regex_match(text, plain)) return text;
  return "'" + std::regex_replace(text, std::regex("'"), "'\\''") + "'";
}

std::string job_script(const Job& job) { return Script(job).text(); }

}  // namespace attune::slurm
