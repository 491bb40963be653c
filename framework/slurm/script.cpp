#include "slurm/script.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <regex>
#include <set>

#include "core/names.hpp"
#include "run_directory/places.hpp"
#include "slurm/command.hpp"

namespace attune::slurm {
namespace names = run_directory::names;
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

/// Quoted, so that the shell still puts in $NAMES, and runs nothing: \$ is a dollar sign.
std::string expanded(const std::string& text) {
  std::string word = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_dollar = text.compare(i, 2, "\\$") == 0;
    if (is_dollar) ++i;
    const bool is_command = text.compare(i, 2, "$(") == 0;
    if (is_dollar || is_command ||
        std::string_view("\"\\`").find(text[i]) != std::string_view::npos)
      word += '\\';
    word += text[i];
  }
  return word + "\"";
}

/// In $'...', where a line end is \n: for texts that must not break a line of the script.
std::string escaped_word(const std::string& text) {
  std::string word = "$'";
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      word += fmt::format("\\x{:02x}", static_cast<int>(c));
    else
      word += c == '\'' || c == '\\' ? std::string{'\\', c} : std::string{c};
  return word + "'";
}

/// Each as one word, also several in one text.
std::string module_words(const std::vector<std::string>& modules) {
  std::vector<std::string> words;
  for (const auto& text : modules)
    for (const auto& name : pieces_of(text, ' '))
      if (!name.empty()) words.push_back(shell_word(name));
  return joined(words, " ");
}

/// Whether the user's options say which GPUs a task sees: by their words, or as what they imply.
bool binds_gpus(const OptionMap& options) {
  static const std::set<std::string> binding{"gpu-bind", "gpus-per-task", "ntasks-per-gpu"};
  return std::ranges::any_of(options, [](const auto& option) {
    const auto& [name, value] = option;
    const bool is_of_gpus = value.find("gpu") != std::string::npos;
    return binding.contains(name) ||
           ((name == "tres-bind" || name == "tres-per-task") && is_of_gpus);
  });
}

class Script {
 public:
  explicit Script(const Job& job)
      : job_(job), o_(job.options), srun_(o_.launcher == config::JobLauncher::srun) {}

  std::string text() {
    head();
    directives();
    surroundings();
    attempts();
    each_node();
    program();
    launch();
    remove_program();
    again();
    return std::move(text_);
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> text, Args&&... args) {
    const auto one = fmt::format(text, std::forward<Args>(args)...);
    text_ += (one.empty() ? "" : indent_) + one + "\n";
  }

  void head() {
    line("#!/bin/bash");
    line("# Trains {}, and requeues itself until the run is done. Written by: {}",
         job_.array ? fmt::format("{} runs", job_.array->size) : "'" + job_.name + "'",
         job_.written_by);
    line("# You may edit this script and submit it with: sbatch {}",
         shell_word(job_.script.string()));
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
    if (o_.gpus_per_node > 0)
      directive("gpus-per-node", fmt::format("{}{}{}", o_.gpu_type, o_.gpu_type.empty() ? "" : ":",
                                             o_.gpus_per_node));
    for (const auto& [name, value] : {std::pair{"mem", &o_.memory},
                                      {"time", &o_.time},
                                      {"partition", &o_.partition},
                                      {"account", &o_.account},
                                      {"qos", &o_.qos},
                                      {"constraint", &o_.constraint},
                                      {"reservation", &o_.reservation},
                                      {"dependency", &o_.dependency},
                                      {"mail-type", &o_.mail_type},
                                      {"mail-user", &o_.mail_user}})
      directive(name, *value);
    if (const auto& array = job_.array) directive("array", array->elements);
    directive("output", job_.log);
    line("# Each attempt appends to the log; Slurm may requeue the job.");
    line("#SBATCH --open-mode=append");
    line("#SBATCH --requeue");
    line("# {} seconds before the time limit (or up to 30 s earlier) {}.", o_.signal,
         srun_ ? "every rank gets SIGTERM, saves and exits with 75"
               : "this script gets SIGUSR1 and forwards it: every rank saves and exits with 75");
    line("#SBATCH --signal={}@{}", srun_ ? "TERM" : "B:USR1", o_.signal);
    for (const auto& [name, value] : o_.options)  // the last word is the user's
      if (value.empty())
        line("#SBATCH --{}", name);
      else
        directive(name, value);
  }

  // ---- What comes before the ranks

  /// Unless the user binds them. Not by --gpu-bind=none: Slurm 22.05 then sets no list of devices,
  /// and where it does not constrain them a rank sees those of other jobs.
  void leave_gpus_unbound() {
    if (o_.gpus_per_node == 0 || binds_gpus(o_.options) || binds_gpus(o_.srun_options)) return;
    line(
        "# Every rank sees all GPUs of the job on its node: ranks that do not see each other's "
        "cannot use CUDA IPC.");
    line("unset \"${{!SLURM_GPU_BIND@}}\" \"${{!SLURM_TRES_BIND@}}\"");
  }

  void surroundings() {
    line("");
    line(
        "# Job steps inherit what this script exports, regardless of --export and the submitting "
        "shell.");
    line("unset SLURM_EXPORT_ENV SLURM_TIME_FORMAT \"${{!SLURM_CPU_BIND@}}\"");
    leave_gpus_unbound();
    line("cd {} || {}", shell_word(job_.from.string()),
         ends_with("its folder does not exist on $(hostname): it must be on a file system that all "
                   "nodes share"));
    line("attune={}", shell_word(job_.program.string()));
    if (job_.array) {
      line("job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID");
      if (job_.array->list.empty())
        line("run={}-$SLURM_ARRAY_TASK_ID", shell_word(job_.directory.string()));
      else
        line("run=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {})",
             shell_word(job_.array->list.string()));
    } else {
      line("job=$SLURM_JOB_ID");
      line("run={}", shell_word(job_.directory.string()));
    }
    if (!o_.modules.empty())
      line("module load {} || {}", module_words(o_.modules),
           ends_with("these modules cannot be loaded on $(hostname): correct slurm.modules, or "
                     "modules in the site file"));
    for (const auto& [name, value] : o_.environment) line("export {}={}", name, expanded(value));
    line("export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK{}",
         srun_ ? " SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" : "");
    line("if [ ! -d \"${{TMPDIR:-/tmp}}\" ]; then");
    line(
        "  echo \"attune: TMPDIR is $TMPDIR, and there is no such folder on $(hostname): /tmp is "
        "used\" >&2");
    line("  export TMPDIR=/tmp");
    line("fi");
    scratch();
    for (const auto& text : o_.lines) line("{}", text);
  }

  void scratch() {
    const auto& site = job_.site.options;
    if (site.stage.empty()) return;
    line("scratch=$(set -u; echo {}) && [ -n \"$scratch\" ] || {}", expanded(site.scratch),
         ends_with(fmt::format("scratch of the site file is {}, which is empty or has a variable "
                               "that is not set in this job",
                               shell_safe(site.scratch))));
    if (!site.stages("data") && !site.stages("model")) return;
    line("# {} copied there once per node and removed at the end.",
         !site.stages("model") ? "The data are"
         : site.stages("data") ? "Data and model are"
                               : "The model is");
    line("export ATTUNE_SCRATCH=\"$scratch\" ATTUNE_STAGE={}", joined(site.stage, ","));
  }

  /// Behind "||": the reason, and the code of a mistake, after which nothing is tried again. $(...)
  /// in it is run.
  static std::string ends_with(const std::string& reason) {
    return fmt::format("{{ echo \"attune: {}\" >&2; exit 2; }}", reason);
  }
  /// Within double quotes, as it is.
  static std::string shell_safe(const std::string& text) {
    return std::regex_replace(text, std::regex("[\"\\\\`$]"), "\\$&");
  }

  void each_node() {
    line("");
    line(
        "# each_node SECONDS COMMAND...: once on every node; false when a node does not answer in "
        "that time. It asks for no memory of its own, which");
    line("# a step that has just ended may still hold.");
    line(
        "each_node() {{ timeout \"$1\" srun --overlap --mem=0 --nodes=\"$SLURM_JOB_NUM_NODES\" "
        "--ntasks=\"$SLURM_JOB_NUM_NODES\" --ntasks-per-node=1 \"${{@:2}}\"; }}");
    if (srun_) remove_leftovers();
  }

  /// The folder is named for user, job and step, in Slurm's TmpFS, where %n stands for the node and
  /// %h for its host.
  void remove_leftovers() {
    line("");
    line(
        "# After a killed step or a node failure, PMIx leaves a folder that makes it refuse the "
        "same step number when this job restarts. Its");
    line(
        "# daemon may also still be terminating: one or two cleaning steps give the ranks a "
        "different step number.");
    line("leftovers='tmp=$(scontrol show config | sed -n \"s/^TmpFS *= //p\")");
    line("tmp=${{tmp//%n/$SLURMD_NODENAME}}");
    line("rm -rf \"${{tmp//%h/$(hostname -s)}}/spmix_appdir_${{UID}}_$SLURM_JOB_ID\".*'");
    line("restart=${{SLURM_RESTART_COUNT:-0}}");
    line("if [ \"$restart\" -gt 0 ]; then each_node 15 --mpi=none bash -c \"$leftovers\"; fi");
    line("if [ $((restart % 2)) -eq 1 ]; then each_node 15 --mpi=none bash -c \"$leftovers\"; fi");
  }

  void attempts() {
    line("");
    line(
        "# Every attempt records the newest checkpoint it starts from. After {} in a row without a "
        "newer one, the job ends.",
        o_.stalled);
    line("mkdir -p \"$run\"");
    line(
        "newest=$(find \"$run/{}\" -maxdepth 1 -name 'step-*' -printf '%f\\n' 2>/dev/null | sort "
        "-V | tail -n 1)",
        names::checkpoints);
    line(
        "echo \"$(date +%FT%T) job=$job restart=${{SLURM_RESTART_COUNT:-0}} ${{newest:-none}}\" "
        ">>\"$run/{}\"",
        names::attempts);
    line("count=$(wc -l <\"$run/{}\")", names::attempts);
    line("moves=$(tail -n {} \"$run/{}\" | awk '{{ print $NF }}' | uniq | wc -l)", o_.stalled + 1,
         names::attempts);
    line("if [ \"$count\" -gt {} ] && [ \"$moves\" -eq 1 ]; then", o_.stalled);
    line(
        "  echo \"{} attempts made no progress, from ${{newest:-the beginning}}: see above for "
        "why; the job ends here\"",
        o_.stalled);
    line("  exit 1");
    line("fi");
    line(
        "# The ranks create this file once all of them are connected; without it, the launch has "
        "failed.");
    line("export ATTUNE_LAUNCHED=\"$run/{}\"", names::launched);
    line("rm -f \"$ATTUNE_LAUNCHED\"");
    line("log=/proc/$$/fd/2  # Slurm's messages about a launch go there");
    line("said_before=$(stat --dereference --format=%s \"$log\")");
  }

  /// Read once, and sent to a task on every node as its input. It is not for MPI to do: its ranks
  /// would be that program.
  void program() {
    if (!job_.site.options.stages("program")) return;
    std::string files;
    for (const auto& file : job_.program_files)
      files += fmt::format(" -C {} {}", shell_word(file.parent_path().string()),
                           shell_word(file.filename().string()));
    line("");
    line("# The program is copied to every node's local disk and removed at the end.");
    line("program=$scratch/attune-$job");
    line("pack() {{ tar --create --dereference{}; }}", files);
    line("unpack='mkdir -p \"$0\" && free=$(df -B1 --output=avail \"$0\" | tail -n 1) || exit 1");
    line("if [ \"$free\" -lt \"$1\" ]; then");
    line(
        "  echo \"attune: $0 on $(hostname): the program takes $1 bytes, and $free are free; make "
        "room, or take it out of stage in the site file\" >&2");
    line("  exit 2");
    line("fi");
    line("exec tar --extract -C \"$0\"'");
    line("pack | each_node 600 bash -c \"$unpack\" \"$program\" \"$(pack | wc -c)\"");
    line("code=$?");
    line("if [ \"$code\" -eq 0 ]; then");
    indent_ = "  ";
    line("attune=$program/attune");
    line("export LD_LIBRARY_PATH=$program${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}");
  }

  void remove_program() {
    if (!job_.site.options.stages("program")) return;
    indent_ = "";
    line("fi");
    line("each_node 60 rm -rf \"$program\"");
  }

  void launch() {
    auto train = fmt::format("\"$attune\" train \"$run/{}\" --resume", names::run_file);
    for (const auto& option : job_.train_options) train += " " + shell_word(option);
    line("");
    line("# Starts from the newest complete checkpoint, or from the beginning if there is none.");
    if (srun_) {
      line(
          "# A signal to the job also reaches this script, which waits for the ranks to save. When "
          "one rank dies, the others are killed.");
      line("trap : TERM");
      line("srun --mpi={} --kill-on-bad-exit=1{} {}", shell_word(o_.mpi), srun_options(), train);
      line("code=$?");
    } else {
      line("mpirun --bind-to none {} &", train);
      line("ranks=$!");
      line("trap 'kill -USR1 \"$ranks\"' USR1");
      line("wait \"$ranks\"");
      line("code=$?");
      line(
          "if [ \"$code\" -eq 138 ]; then  # 128 + SIGUSR1: the signal ended the wait, not the "
          "ranks");
      line("  wait \"$ranks\"");
      line("  code=$?");
      line("fi");
    }
  }

  std::string srun_options() const {
    std::string text;
    for (const auto& [name, value] : o_.srun_options)
      text += " --" + name + (value.empty() ? "" : "=" + expanded(value));
    return text;
  }

  // ---- What comes after them

  void again() {
    line("");
    line("launched= without=");
    line("if [ -e \"$ATTUNE_LAUNCHED\" ]; then");
    line("  launched=yes");
    line("  rm -f \"$ATTUNE_LAUNCHED\" \"$run/{}\"", names::launches);
    line("fi");
    line("");
    line(
        "# 75: interrupted, the state is saved. Other failures are retried only if the run did not "
        "cause them.");
    line(
        "told() {{ scontrol -o show job \"$job\" | sed 's/ JobName=.* UserId=/ UserId=/' | tr ' ' "
        "'\\n' | sed -n \"s/^$1=//p\" | head -n 1; }}");
    line("preempted() {{ [[ $(told PreemptTime) = [0-9]* ]]; }}");
    line("node_lost() {{ ! each_node 60 true; }}");
    failed_launches();
    if (o_.retries > 0)
      line("failures() {{ cat \"$run/{}\" 2>/dev/null || echo 0; }}", names::failures);
    line("queue_again() {{");
    line(
        "  if [ \"$count\" -gt {} ]; then echo \"this was attempt $count: the job ends here, see "
        "slurm.restarts\"; exit \"$code\"; fi",
        o_.restarts);
    line("  # A job that you cancelled, or that Slurm requeues itself, is already ending.");
    line(
        "  if [ \"$(told JobState)\" != RUNNING ] && [ \"$(told Reason)\" != TimeLimit ]; then "
        "exit \"$code\"; fi");
    line("  if [ \"$(told Requeue)\" = 1 ] && scontrol requeue \"$job\"; then");
    line(
        "    if [ -n \"$without\" ]; then scontrol update JobId=\"$job\" ExcNodeList=\"$without\"; "
        "fi");
    line("    exit \"$code\"");
    line("  fi");
    line("  # Where requeueing is not allowed, this script is submitted as a new job.");
    line("  unset \"${{!SBATCH_@}}\"");
    line(
        "  next=$(sbatch --parsable --dependency=\"afterany:$job\" "
        "${{without:+--exclude=\"$without\"}}{} {}) &&",
        job_.array ? " --array=\"$SLURM_ARRAY_TASK_ID\"" : "", shell_word(job_.script.string()));
    line("    echo \"${{next%%;*}}{}\" >>\"$run/{}\"", job_.array ? "_$SLURM_ARRAY_TASK_ID" : "",
         names::jobs);
    line("}}");
    line(
        "# If a task cannot be launched, srun ends the others and returns any code: 137, 143, or 0 "
        "if it waited for them in vain.");
    line("if [ -z \"$launched\" ] && launch_failed; then");
    line("  if [ \"$code\" -eq 0 ]; then code=1; fi");
    line("  launch_again");
    line("fi");
    line("case $code in");
    line("  0 | 2) ;;  # done, or a mistake in the run file");
    line("  75) queue_again ;;");
    line("  143) queue_again ;;  # killed by SIGTERM before it handled signals: nothing to save");
    line("  *)");
    line("    if preempted || node_lost; then queue_again; fi");
    line("    if [ -z \"$launched\" ]; then launch_again; fi");
    if (o_.retries > 0) {
      line("    if [ \"$(failures)\" -lt {} ]; then", o_.retries);
      line("      echo $(($(failures) + 1)) >\"$run/{}\"", names::failures);
      line("      queue_again");
      line("    fi");
    }
    line("    ;;");
    line("esac");
    line("exit \"$code\"");
  }

  /// A launch that fails says nothing of the run: it is no attempt, and counts for itself.
  void failed_launches() {
    line("said() {{ [ ! -f \"$log\" ] || tail --bytes=\"+$((said_before + 1))\" \"$log\"; }}");
    line(
        "launch_failed() {{ said | grep --quiet '^srun: error: \\(Task launch for\\|task [0-9, -]* "
        "launch failed\\)'; }}");
    line("# failed_nodes: nodes on which no task could be launched, according to srun.");
    line("failed_nodes() {{");
    line("  local nodes task");
    line(
        "  said | sed -n 's/^srun: error: Task launch for .* failed on node \\([^:]*\\):.*/\\1/p'");
    if (places_tasks_in_order()) {
      line("  readarray -t nodes < <(scontrol show hostnames \"$SLURM_JOB_NODELIST\")");
      line(
          "  for task in $(sed -n 's/^srun: error: task \\([0-9]*\\) launch failed.*/\\1/p' < "
          "<(said)); do echo \"${{nodes[task / {}]}}\"; done",
          o_.tasks_per_node);
    }
    line("}}");
    line("# A node that failed twice is excluded, unless the job needs it.");
    line("leave_out() {{");
    line(
        "  without=$(awk '{{ print $NF }}' \"$run/{}\" | tr , '\\n' | grep -vx unknown | sort | "
        "uniq -d | paste --serial --delimiters=,)",
        names::launches);
    line("  if [ -z \"$without\" ]; then return; fi");
    line("  local before");
    line("  before=$(told ExcNodeList)");
    line("  if [[ $before = [a-zA-Z0-9]* ]]; then without=$before,$without; fi");
    line(
        "  if ! (unset \"${{!SBATCH_@}}\" && sbatch --test-only --exclude=\"$without\" {}) "
        "2>/dev/null; then",
        shell_word(job_.script.string()));
    line("    echo \"attune: the job cannot do without $without\"");
    line("    without=");
    line("  fi");
    line("}}");
    line(
        "# No rank started: a node or Slurm failed. This does not count as an attempt; it is "
        "retried {} in a row.",
        o_.stalled == 1 ? "once" : fmt::format("{} times", o_.stalled));
    line("launch_again() {{");
    line("  if [ \"$(told JobState)\" != RUNNING ]; then exit \"$code\"; fi");
    line("  trap '' TERM  # sent by the requeue before the node is excluded");
    line("  local failed launches");
    line("  failed=$(failed_nodes | sort -u | paste --serial --delimiters=,)");
    line("  sed -i '$d' \"$run/{}\"", names::attempts);
    line(
        "  echo \"$(date +%FT%T) job=$job restart=${{SLURM_RESTART_COUNT:-0}} "
        "${{failed:-unknown}}\" >>\"$run/{}\"",
        names::launches);
    line("  launches=$(wc -l <\"$run/{}\")", names::launches);
    line("  if [ \"$launches\" -gt {} ]; then", o_.stalled);
    line(
        "    echo \"attune: the launch failed $launches times in a row${{failed:+, now on "
        "$failed}}: see above for why, and slurm.stalled; the job ends here\"");
    line("    exit \"$code\"");
    line("  fi");
    line("  leave_out");
    line(
        "  echo \"attune: no rank was launched${{failed:+ on $failed}} (exit code $code): tried "
        "again${{without:+ without $without}}\"");
    line("  queue_again");
    line("  exit \"$code\"");
    line("}}");
  }

  /// srun names tasks and not nodes where a launch fails; unless told otherwise, it fills one node
  /// after another.
  bool places_tasks_in_order() const {
    if (!srun_ || o_.options.contains("distribution")) return false;
    const auto moves_tasks = [](const auto& option) {
      static const std::set<std::string> names{"distribution", "nodelist", "exclude", "relative",
                                               "nodefile"};
      return names.contains(option.first);
    };
    return std::none_of(o_.srun_options.begin(), o_.srun_options.end(), moves_tasks);
  }

  const Job& job_;
  const SlurmOptions& o_;
  bool srun_;
  std::string text_;
  std::string indent_;
};

}  // namespace

std::string log_pattern(const std::filesystem::path& path) {
  if (path.string().find('\\') != std::string::npos)
    fail("{}: Slurm cannot write a log to a path with a backslash: change 'name' or 'output'",
         path.string());
  return std::regex_replace(path.string(), std::regex("%"), "%%");
}

std::string shell_word(const std::string& text) {
  static const std::regex plain("[A-Za-z0-9_@%+=:,./-]+");
  if (std::regex_match(text, plain)) return text;
  if (std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }))
    return escaped_word(text);
  return "'" + std::regex_replace(text, std::regex("'"), "'\\''") + "'";
}

std::string job_script(const Job& job) { return Script(job).text(); }

}  // namespace attune::slurm
