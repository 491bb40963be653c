#include "slurm/reasons.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <regex>
#include <vector>

#include "core/names.hpp"
#include "slurm/environment.hpp"

namespace attune::slurm {
namespace {

using config::SlurmOptions;

/// What sinfo prints, one thing a line, as a list for a message.
std::string known_by_sinfo(const std::string& format) {
  auto known = lines_of(run_slurm({"sinfo", "--noheader", "--format=" + format}).out);
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return known.empty() ? "sinfo names them" : "there are: " + joined(known);
}

std::string counted(std::int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string wishes(const SlurmOptions& o) {
  auto text = fmt::format("{} of {} with {}", counted(o.nodes, "node"),
                          counted(o.tasks_per_node, "task"), counted(o.cpus_per_task, "processor"));
  if (o.gpus_per_node > 0) text += fmt::format(", {} per node", counted(o.gpus_per_node, "GPU"));
  if (!o.memory.empty()) text += fmt::format(", {} of memory per node", o.memory);
  return text;
}

/// The key and its value, as a message names it.
std::string is_now(const char* key, const std::string& value) {
  return value.empty() ? fmt::format("slurm.{}, which is not set", key)
                       : fmt::format("slurm.{}, which is '{}'", key, value);
}

constexpr const char* list_mine =
    "`sacctmgr show associations user=$USER format=account,partition,qos` lists yours";
constexpr const char* list_limits =
    "`sacctmgr show qos` and `sacctmgr show associations user=$USER` list the limits";

// ---- Limits: QOSMaxSubmitJobPerUserLimit, AssocGrpCPUMinutesLimit, ...: who sets them, over what,
// of what

std::string holder_of_limit(const std::string& reason) {
  if (reason.starts_with("QOS")) return "the QOS";
  return "the account";
}

std::string scope_of_limit(const std::string& reason) {
  const auto has = [&](const char* part) { return reason.find(part) != std::string::npos; };
  if (has("PerUser")) return "each user";
  if (has("PerAccount")) return "each account";
  if (has("PerNode")) return "each job on a node";
  if (has("Grp")) return "all jobs in it together";
  if (has("PerJob")) return "one job";
  return has("Submit") || has("Jobs") ? "you" : "one job";
}

struct Limit {
  const char* part;  // of the reason
  const char* what;
  const char* cure;
};
// The first that fits: minutes before what they are minutes of.
constexpr Limit limits[] = {
    {"Submit", "more jobs in the queue",
     "wait until some of your jobs end, or lower the number of elements in slurm.array; running "
     "`attune sweep` again submits the remaining trials"},
    {"RunMinutes", "more running jobs times their time limits",
     "lower slurm.time, slurm.nodes or slurm.cpus_per_task, or wait until other jobs end"},
    {"Minutes", "more of its budget of processor time",
     "lower slurm.time, slurm.nodes or slurm.cpus_per_task, or charge another slurm.account"},
    {"Wall", "a longer time limit", "lower slurm.time"},
    {"Jobs", "more running jobs", "wait until some jobs end"},
    {"Job", "more running jobs", "wait until some jobs end"},
    {"Mem", "more memory", "lower slurm.memory"},
    {"GRES", "more GPUs", "lower slurm.gpus_per_node or slurm.nodes"},
    {"Node", "more nodes", "lower slurm.nodes"},
    {"Cpu", "more processors", "lower slurm.nodes, slurm.tasks_per_node or slurm.cpus_per_task"},
    {"CPU", "more processors", "lower slurm.nodes, slurm.tasks_per_node or slurm.cpus_per_task"},
    {"License", "more licences", "lower 'licenses' in slurm.options"},
    {"Billing", "more billing units",
     "lower slurm.nodes, slurm.cpus_per_task, slurm.gpus_per_node or slurm.memory"},
    {"BB", "a larger burst buffer", "lower it in slurm.options"},
    {"Energy", "more energy", "lower slurm.nodes or slurm.time"},
    {"", "more", "lower what [slurm] asks for"},
};

std::string limit_in(const std::string& text) {
  static const std::regex form(R"(\b(QOS|Assoc)(Grp|Max|Min)[A-Za-z]+\b)");
  std::smatch found;
  return std::regex_search(text, found, form) ? found.str() : "";
}

std::string explain_limit(const std::string& reason) {
  if (reason.find("Min") != std::string::npos &&
      (reason.starts_with("QOSMin") || reason.starts_with("AssocMin")))
    return fmt::format(
        "{} rejects jobs that request so few resources; raise slurm.nodes or slurm.cpus_per_task, "
        "or set another slurm.qos",
        holder_of_limit(reason));
  // "PerJob" and "PerNode" say over what, not of what.
  const auto what = std::regex_replace(reason, std::regex("Per(Job|Node|User|Account)"), "");
  const auto limit = std::find_if(std::begin(limits), std::end(limits), [&](const Limit& one) {
    return what.find(one.part) != std::string::npos;
  });
  return fmt::format("{} does not allow {} {}; {}, or set another slurm.{}",
                     holder_of_limit(reason), scope_of_limit(reason), limit->what, limit->cure,
                     reason.starts_with("QOS") ? "qos" : "account");
}

// ---- What sbatch says

struct Refusal {
  std::vector<const char*> words;  // any of them, in small letters
  std::function<std::string()> cure;
};

/// The first that fits, in this order.
std::vector<Refusal> refusals(const SlurmOptions& o) {
  const auto text = [](std::string words) { return [words = std::move(words)] { return words; }; };
  const auto sinfo = [](const std::string& before, const char* format) {
    return [=] { return fmt::format("{} ({})", before, known_by_sinfo(format)); };
  };
  return {
      {{"accounting/qos policy"},
       text(fmt::format("the job requests {}, which exceeds a limit of your account or QOS; lower "
                        "that, or set slurm.account or slurm.qos; {}",
                        wishes(o), list_limits))},
      {{"unable to open file"},
       text("sbatch cannot read the job script; the run directory must be on a file system visible "
            "to sbatch")},
      {{"timed out", "receive failure"},
       text("the controller did not answer in time but may have queued the job; check with `squeue "
            "--me` before you submit again")},
      {{"unable to contact slurm controller", "connection refused", "standby mode",
        "connect failure", "connection failure", "send failure", "zero bytes were transmitted",
        "temporarily unavailable", "slurm is busy", "unable to connect to database", "rate limit"},
       text("the cluster's controller is down, overloaded or unreachable; try again later")},
      {{"configuration source", "dns srv", "slurm.conf"},
       text(
           "this machine has no Slurm configuration; submit from a login node, or set SLURM_CONF")},
      {{"credential", "authentication", "munge"},
       text("Slurm cannot authenticate you on this machine; report to the administrators that "
            "munge does not work here")},
      {{"incompatible version", "incompatible plugin"},
       text("sbatch on this machine has a different version than the cluster; submit from a login "
            "node of the cluster")},
      {{"account/partition", "nvalid account"},
       text(fmt::format("set {}, or {}; {}", is_now("account", o.account),
                        is_now("partition", o.partition), list_mine))},
      {{"usage threshold", "invalid qos", "qos specification"},
       text(fmt::format("set {}; {}", is_now("qos", o.qos), list_mine))},
      {{"denied to requested reservation", "reservation"},
       text(fmt::format(
           "set {}; `scontrol show reservation` lists reservations with their users and times",
           is_now("reservation", o.reservation)))},
      {{"not in this partition"},
       text(fmt::format(
           "the nodes named in slurm.options are not in that partition; set {}, or name others",
           is_now("partition", o.partition)))},
      {{"partition in down", "partition not available", "partition configuration not available"},
       sinfo(fmt::format("the partition accepts no jobs now; wait, or set {}, to another",
                         is_now("partition", o.partition)),
             "%R %a")},
      {{"invalid partition", "partition name"},
       sinfo(fmt::format("set {}", is_now("partition", o.partition)), "%R")},
      {{"permission denied", "not permitted to use", "user's group"},
       text(fmt::format("you may not use that partition, account or option; set {}, {}, or {}; {}",
                        is_now("partition", o.partition), is_now("account", o.account),
                        is_now("qos", o.qos), list_mine))},
      {{"invalid user id", "invalid group id"},
       text("you have no account on the cluster; ask its administrators for one")},
      {{"time limit", "invalid --time ", "partitiontimelimit", "time-min", "invalid time"},
       sinfo(fmt::format("set {}, to what the partition allows", is_now("time", o.time)), "%R %l")},
      {{"memory", "--mem "},
       sinfo(fmt::format("set {}", is_now("memory", o.memory)), "%R: %m MB a node")},
      {{"gres", "generic resource", "trackable resource", "tres"},
       sinfo(fmt::format("the job requests {} on each node; set slurm.gpus_per_node, or correct "
                         "slurm.options",
                         counted(o.gpus_per_node, "GPU")),
             "%R: %G")},
      {{"node count", "node configuration", "more processors", "available processors", "cpu count",
        "task count", "partitionnodelimit", "nodes requested"},
       sinfo(fmt::format("the job requests {}; lower that in [slurm]", wishes(o)),
             "%R: %D nodes of %c processors and %m MB")},
      {{"node not available", "invalid node name"},
       sinfo("the nodes named in slurm.options are down, reserved, or unknown; choose others, or "
             "remove them",
             "%R: %N")},
      {{"feature", "constraint"},
       sinfo(fmt::format("set {}", is_now("constraint", o.constraint)), "%R: %f")},
      {{"job array"},
       text(fmt::format("set {}; the limit is MaxArraySize in `scontrol show config`",
                        is_now("array", o.array)))},
      {{"dependency"}, text(fmt::format("set {}", is_now("dependency", o.dependency)))},
      {{"mail type", "mail-type"},
       text(fmt::format("set {}, to NONE, BEGIN, END, FAIL, ... with commas between them",
                        is_now("mail_type", o.mail_type)))},
      {{"signal specification"}, text(fmt::format("set slurm.signal, which is {}", o.signal))},
      {{"license"},
       text("correct 'licenses' in slurm.options; `scontrol show licenses` lists them")},
      {{"wckey"}, text("set 'wckey' in slurm.options")},
      {{"cluster name", "specified clusters"},
       text("correct 'clusters' in slurm.options, or SLURM_CLUSTERS in the environment")},
      {{"burst buffer"}, text("correct the burst buffer in slurm.options")},
      {{"too long", "too large"}, text("shorten slurm.lines, or the names and paths of the run")},
      {{"unrecognized option", "invalid option", "ambiguous", "requires an argument",
        "allow an argument", "specification"},
       text("correct slurm.options")},
  };
}

std::string lowered(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

/// The last line says that it failed; those before it often say why.
std::string words_of(const std::string& said) {
  std::vector<std::string> words;
  for (auto line : lines_of(said)) {
    for (const std::string_view start : {"sbatch: fatal: ", "sbatch: error: ", "sbatch: ",
                                         "allocation failure: ", "Batch job submission failed: "})
      if (line.starts_with(start)) line.erase(0, start.size());
    if (!line.empty() && !line.starts_with("Try ") &&
        std::find(words.begin(), words.end(), line) == words.end())
      words.push_back(line);
  }
  if (words.empty()) return "no reason is given";
  const auto last = words.back();
  words.pop_back();
  return words.empty() ? last : fmt::format("{} ({})", last, joined(words, "; "));
}

}  // namespace

std::string explain_refusal(const std::string& said, const SlurmOptions& options) {
  const auto limit = limit_in(said);
  std::string cure = "see [slurm] of the run file, and `scontrol show partition`";
  if (!limit.empty()) cure = explain_limit(limit);
  const auto words = lowered(said);
  const auto fits = [&](const Refusal& one) {
    return std::any_of(one.words.begin(), one.words.end(),
                       [&](const char* word) { return words.find(word) != std::string::npos; });
  };
  const auto all = refusals(options);
  if (const auto found = std::find_if(all.begin(), all.end(), fits);
      limit.empty() && found != all.end())
    cure = found->cure();
  return fmt::format("Slurm rejects the job: {}: {}", words_of(said), cure);
}

std::string explain_waiting(const std::string& reason) {
  if (const auto limit = limit_in(reason); !limit.empty())
    return fmt::format("{}: {}", reason, explain_limit(limit));
  static const std::pair<const char*, const char*> meanings[] = {
      {"ReqNodeNotAvail",
       "required nodes are down, drained or reserved; the job starts when they are available, or "
       "choose others in slurm.options"},
      {"PartitionTimeLimit",
       "slurm.time exceeds the partition's limit; cancel the job, lower slurm.time, and submit "
       "again"},
      {"PartitionNodeLimit",
       "slurm.nodes is outside the partition's limits; cancel the job, change slurm.nodes, and "
       "submit again"},
      {"PartitionDown", "the partition is down; wait, or set another slurm.partition"},
      {"PartitionInactive",
       "the partition accepts no jobs now; wait, or set another slurm.partition"},
      {"PartitionConfig",
       "the partition has no nodes that match [slurm]; lower the request, or set another "
       "slurm.partition"},
      {"BadConstraints",
       "no node matches [slurm]; cancel the job, lower the request or set another "
       "slurm.constraint, and submit again"},
      {"AccountNotAllowed",
       "slurm.account may not use the partition; cancel the job, change one of them, and submit "
       "again"},
      {"AccountingPolicy",
       "a limit of your account or QOS holds the job back; set another slurm.account or slurm.qos"},
      {"InvalidAccount",
       "slurm.account is not one of your accounts; cancel the job, set another, and submit again"},
      {"InvalidQOS",
       "slurm.qos is not available to you; cancel the job, set another, and submit again"},
      {"QOSNotAllowed",
       "slurm.qos may not be used with this account or partition; cancel the job, set another, and "
       "submit again"},
      {"QOSResourceLimit",
       "a limit of the QOS holds the job back; lower the request in [slurm], or set another "
       "slurm.qos"},
      {"QOSJobLimit", "you run as many jobs as the QOS allows; this job starts when others end"},
      {"QOSTimeLimit", "the QOS has used up its time; set another slurm.qos"},
      {"QOSUsageThreshold", "the account has used more than the QOS allows; set another slurm.qos"},
      {"AssociationJobLimit",
       "you run as many jobs as the account allows; this job starts when others end"},
      {"AssociationResourceLimit",
       "a limit of the account holds the job back; lower the request in [slurm], or set another "
       "slurm.account"},
      {"AssociationTimeLimit", "the account has used up its time; set another slurm.account"},
      {"DependencyNeverSatisfied",
       "the condition of slurm.dependency can no longer be met; cancel this job, and submit it "
       "again without the dependency"},
      {"JobHeldUser", "you hold the job; `scontrol release JOB` releases it"},
      {"JobHeldAdmin",
       "the job is held, by an administrator or because it failed to start; ask the "
       "administrators, or run `scontrol release JOB`"},
      {"launch failed requeued held",
       "a node failed to start the job, so Slurm holds it; `scontrol release JOB` releases it"},
      {"NodeDown", "a required node is down; the job starts when the node is back"},
      {"ReservationDeleted",
       "slurm.reservation no longer exists; cancel the job, and submit it again without the "
       "reservation"},
      {"Reservation", "slurm.reservation has not begun"},
      {"Licenses", "the job waits for licences"},
      {"BeginTime",
       "Slurm delays the job until its begin time, which is two minutes after a requeue"},
      {"JobArrayTaskLimit",
       "the number of running array elements has reached the limit in slurm.array"},
      {"None", "the scheduler has not considered the job yet"},
  };
  for (const auto& [name, meaning] : meanings)
    if (reason.starts_with(name)) return fmt::format("{}: {}", reason, meaning);
  return reason;
}

namespace {

std::string exit_of(const Ending& ending) {
  if (ending.signal > 0)
    return fmt::format("FAILED: its job script was killed by signal {}", ending.signal);
  if (ending.code > 128)
    return fmt::format("FAILED with exit code {} (signal {})", ending.code, ending.code - 128);
  if (ending.code > 0) return fmt::format("FAILED with exit code {}", ending.code);
  return "FAILED";
}

}  // namespace

std::string explain_ending(const Ending& ending) {
  const auto& state = ending.state;
  if (state == "FAILED") return exit_of(ending);
  if (state == "CANCELLED" && !ending.cancelled_by.empty())
    return fmt::format("CANCELLED by {}; the same command submits it again", ending.cancelled_by);
  if (state == "NODE_FAIL" && !ending.nodes.empty())
    return fmt::format("NODE_FAIL: a node failed ({}); the same command submits it again",
                       ending.nodes);
  static const std::pair<const char*, const char*> meanings[] = {
      {"CANCELLED", "the same command submits it again"},
      {"OUT_OF_MEMORY",
       "the job exceeded its memory; raise slurm.memory, or lower train.micro_batch"},
      {"TIMEOUT",
       "the time limit was reached before the state was saved; raise slurm.signal or slurm.time"},
      {"NODE_FAIL", "a node failed; the same command submits it again"},
      {"BOOT_FAIL", "a node did not boot; the same command submits it again"},
      {"DEADLINE", "the deadline in slurm.options passed before the run was done"},
      {"PREEMPTED", "a job of higher priority took the nodes; the same command submits it again"},
      {"REVOKED", "another cluster of the federation took the job"},
      {"COMPLETED", "the job script ended before the run was done"},
  };
  for (const auto& [name, meaning] : meanings)
    if (state == name) return fmt::format("{}: {}", state, meaning);
  return state;
}

}  // namespace attune::slurm
