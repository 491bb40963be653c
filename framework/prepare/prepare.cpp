#include "prepare/prepare.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <future>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "core/files.hpp"
#include "core/names.hpp"
#include "data/store.hpp"
#include "parallel/mpi.hpp"
#include "prepare/clean.hpp"
#include "prepare/encoder.hpp"
#include "prepare/plan.hpp"
#include "prepare/privacy.hpp"
#include "prepare/spill.hpp"
#include "prepare/twins.hpp"
#include "prepare/writer.hpp"

namespace attune {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

/// The folder <output>.partial: all that is written before the file is whole. Gone with this
/// object.
class WorkFolder {
 public:
  WorkFolder(fs::path path, const Comm& comm) : path_(std::move(path)), comm_(comm) {
    on_root(comm, [&] {
      try {
        fs::remove_all(path_);
        fs::create_directories(path_);
      } catch (const fs::filesystem_error& error) {
        fail("{}: the folder cannot be created ({}); set output to a writable location",
             path_.string(), error.code().message());
      }
    });
  }
  ~WorkFolder() { remove(); }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const fs::path& path() const { return path_; }
  /// Tells the other ranks that this one has failed, so that they need not finish their share
  /// first.
  void give_up() const { std::ofstream(path_ / "failed"); }
  bool given_up() const { return fs::exists(path_ / "failed"); }
  /// Error when the disk has not that much room left.
  void check_room(std::uint64_t bytes) const {
    constexpr std::uint64_t reserve = 1 << 20;  // for what HDF5 writes besides
    std::error_code unknown;
    const auto room = fs::space(path_, unknown).available;
    if (!unknown && room < bytes + reserve)
      fail(
          "{}: the disk is full: {} are needed, {} are free; free space there, or set output to "
          "another disk",
          path_.string(), human_bytes(static_cast<double>(bytes + reserve)),
          human_bytes(static_cast<double>(room)));
  }
  /// Runs what all ranks do at the same time in libraries that wait for each other: who fails there
  /// alone ends all.
  template <class Work>
  void together(Work work) const {
    try {
      work();
    } catch (const std::exception& error) {
      if (comm_.size() == 1) throw;
      remove();
      abort_all(dynamic_cast<const Error*>(&error) ? ExitCode::user_mistake : ExitCode::fault,
                error.what());
    }
  }

 private:
  void remove() const {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path path_;
  const Comm& comm_;
};

/// All that the parts below have in common.
struct Run {
  const Recipe& recipe;
  const Comm& comm;
  const Watch& watch;
  const WorkFolder& work;
  Ledger ledger;  // rank 0's in the end holds everything

  std::string list_file(int rank) const { return work.path() / fmt::format("rejected-{}", rank); }
  void tell(const char* stage, std::uint64_t done, std::uint64_t all, std::int64_t records) const {
    if (watch) watch({stage, done, all, records});
  }
};

// --- Scanning: each source by one rank

std::vector<Source> scan_sources(const Run& run) {
  const auto& wanted = run.recipe.sources;
  const auto path = [&](std::size_t i) { return run.recipe.resolve(wanted[i].path); };
  json own = json::object();
  run.comm.agree([&] {
    for (auto i = static_cast<std::size_t>(run.comm.rank()); i < wanted.size();
         i += static_cast<std::size_t>(run.comm.size())) {
      run.tell("scanning", i, wanted.size(), 0);
      own[std::to_string(i)] = to_json(scan_source(wanted[i], path(i)));
    }
  });
  std::vector<Source> sources(wanted.size());
  for (const auto& text : run.comm.gather(dumped(own))) {
    const auto theirs = json::parse(text);
    for (const auto& [number, scanned] : theirs.items()) {
      const auto i = std::stoul(number);
      sources[i] = source_from(wanted[i], path(i), scanned);
    }
  }
  return sources;
}

// --- Reading: every rank its share of the blocks, into its file of records

struct Piece {
  std::uint32_t source;
  Block block;
};

/// This rank's blocks: neighbours, and about as many bytes as every other rank's.
std::vector<Piece> share_of(const std::vector<Source>& sources, const Comm& comm) {
  const auto all =
      std::accumulate(sources.begin(), sources.end(), std::uint64_t{0},
                      [](auto sum, const Source& source) { return sum + source.bytes(); });
  const double step = std::max(1.0, static_cast<double>(all) / comm.size());
  std::vector<Piece> pieces;
  std::uint64_t before = 0;
  for (std::uint32_t i = 0; i < sources.size(); ++i)
    for (const auto& block : sources[i].blocks) {
      const auto middle = static_cast<double>(before) + static_cast<double>(block.bytes) / 2;
      if (std::min(static_cast<int>(middle / step), comm.size() - 1) == comm.rank())
        pieces.push_back({i, block});
      before += block.bytes;
    }
  return pieces;
}

/// What one rank has read.
class RecordReader {
 public:
  RecordReader(Run& run, const Dataset& dataset)
      : run_(run),
        dataset_(dataset),
        records_(run.work.path(), run.comm.rank()),
        list_(run.list_file(run.comm.rank())),
        counts_(run.recipe.sources.size()),
        told_(counts_) {
    if (run.recipe.clean.deduplicate == "near" || run.recipe.split.leakage == "near")
      bands_.emplace(run.work.path(), run.comm.rank(),
                     Banding::for_similarity(run.recipe.clean.similarity));
  }

  void read(const std::vector<Source>& sources, const std::vector<Piece>& share) {
    const auto all =
        std::accumulate(share.begin(), share.end(), std::uint64_t{0},
                        [](auto sum, const Piece& piece) { return sum + piece.block.bytes; });
    std::uint64_t done = 0;
    for (const auto& [source, block] : share) {
      if (run_.work.given_up()) return;
      const auto dropped = run_.ledger.dropped_count();
      read_block(sources[source], block, run_.ledger,
                 [&, number = source](Record& record) { take(record, number); });
      told_[source] += run_.ledger.dropped_count() - dropped;
      list_.write(run_.ledger.take_list());
      run_.tell("reading", done += block.bytes, all, records_.count());
    }
    records_.close();
    list_.close();
    if (bands_) bands_->close();
  }

  json result() const {
    return {{"records", records_.count()},
            {"counts", counts_},
            {"told", told_},
            {"strata", strata_.to_json()},
            {"ledger", run_.ledger.to_json()}};
  }

 private:
  void take(Record& record, std::uint32_t source) {
    ++counts_[source];
    if (!clean(run_.recipe.clean, record, run_.ledger)) return;
    mask_personal_data(run_.recipe.privacy.mask, record, run_.ledger);
    const auto names = dataset_.labels(record);
    check_labels(run_.recipe.clean, record, names);
    records_.add(record, source, strata_.number(record, names));
    if (bands_) bands_->add(record);
  }

  Run& run_;
  const Dataset& dataset_;
  RecordWriter records_;
  std::optional<BandWriter> bands_;
  OutFile list_;
  Strata strata_;
  std::vector<std::int64_t> counts_;  // records read, by source
  std::vector<std::int64_t> told_;    // and those dropped with a reason
};

/// Runs work, which reads nothing of the other ranks; they are told at once when it fails.
void agree_soon(const Run& run, const std::function<void()>& work) {
  run.comm.agree([&] {
    try {
      work();
    } catch (...) {
      run.work.give_up();
      throw;
    }
  });
}

std::string reasons(const Tallies& dropped) {
  std::vector<std::string> parts;
  for (const auto& [reason, tally] : dropped)
    parts.push_back(fmt::format("{}: {}", reason, tally.count));
  return joined(parts);
}

Reading read_sources(Run& run, const std::vector<Source>& sources, const Dataset& dataset,
                     PrepareReport& report) {
  std::string own;
  agree_soon(run, [&] {
    RecordReader reader(run, dataset);
    reader.read(sources, share_of(sources, run.comm));
    own = dumped(reader.result());
  });
  Reading reading{run.work.path(), {}, {}};
  std::vector<std::int64_t> counts(sources.size());
  std::vector<std::int64_t> told(sources.size());
  run.ledger = Ledger(run.recipe.list_rejected);
  for (const auto& text : run.comm.gather(own)) {
    const auto rank = json::parse(text);
    reading.counts.push_back(rank.at("records"));
    reading.strata.push_back(rank.at("strata"));
    run.ledger.add(rank.at("ledger"));
    for (std::size_t i = 0; i < counts.size(); ++i) {
      counts[i] += rank.at("counts")[i].get<std::int64_t>();
      told[i] += rank.at("told")[i].get<std::int64_t>();
    }
  }
  run.comm.agree([&] {
    for (std::size_t i = 0; i < counts.size(); ++i)
      if (counts[i] + told[i] == 0) fail("{}: contains no records", sources[i].path.string());
    if (std::ranges::all_of(counts, [](auto count) { return count == 0; }))
      fail("{}: no source contains a readable record ({})", run.recipe.path.string(),
           reasons(run.ledger.dropped()));
  });
  report.records = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  return reading;
}

// --- Deciding: by rank 0

Plan plan_splits(Run& run, const Reading& reading) {
  std::string text;
  on_root(run.comm, [&] { text = dumped(to_json(make_plan(run.recipe, reading, run.ledger))); });
  return plan_from(json::parse(run.comm.broadcast(text)));
}

// --- Encoding and writing: by all ranks, in rounds

std::uint64_t bytes_of_samples(const std::vector<Sample>& samples) {
  std::uint64_t bytes = 0;
  for (const auto& sample : samples)
    for (const auto& [name, value] : sample) bytes += value.nbytes() + sizeof(std::int64_t);
  return bytes;
}

/// Room on the disk for the samples of all ranks.
void check_room(const Run& run, std::uint64_t own_bytes) {
  const auto all = run.comm.sum(static_cast<std::int64_t>(own_bytes));
  on_root(run.comm, [&] { run.work.check_room(static_cast<std::uint64_t>(all)); });
}

std::int64_t write_split(Run& run, const hdf5::Group& root, const std::string& name,
                         const Plan& plan, const Encoder& encoder, const Records& records,
                         OutFile* list) {
  const auto& cuts = plan.splits.at(name).cuts;
  const auto ranks = static_cast<std::size_t>(run.comm.size());
  const auto rank = static_cast<std::size_t>(run.comm.rank());
  Ledger ledger;  // of this split alone
  std::optional<SplitWriter> writer;
  run.work.together([&] { writer.emplace(root, name, (cuts.size() - 1) / ranks, run.comm); });
  for (std::size_t piece = rank; piece + 1 < cuts.size(); piece += ranks) {
    std::vector<Sample> samples;
    std::string own;
    run.comm.agree([&] {
      Ledger round(run.recipe.list_rejected);
      samples = encoder.encode(read_elements<Draw>(draws_file(run.work.path(), name), cuts[piece],
                                                   cuts[piece + 1] - cuts[piece]),
                               records, plan.labels, round);
      own = dumped({{"summary", SplitWriter::summary(samples)},
                    {"ledger", round.to_json()},
                    {"list", round.take_list()}});
    });
    check_room(run, bytes_of_samples(samples));
    std::vector<json> summaries;
    for (const auto& text : run.comm.gather(own)) {
      auto one = json::parse(text);
      ledger.add(one.at("ledger"));
      if (list) list->write(one.at("list").get<std::string>());
      summaries.push_back(std::move(one.at("summary")));
    }
    run.work.together([&] { writer->append(samples, summaries); });
    run.tell("encoding", cuts[std::min(piece - rank + ranks, cuts.size() - 1)], cuts.back(),
             writer->samples());
  }
  run.comm.agree([&] {
    if (writer->samples() > 0) return;
    const auto why = ledger.dropped().empty() ? "no record was assigned to it"
                                              : fmt::format("all its records were rejected ({})",
                                                            reasons(ledger.dropped()));
    fail("{}: the split '{}' is empty: {}; change [split], the sources or the plugin's options",
         run.recipe.path.string(), name, why);
  });
  run.ledger.add(ledger.to_json());
  return writer->samples();
}

// --- The file

std::string now() {
  const std::time_t seconds =
      std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// HDF5's limit for an attribute is 64 KiB: a longer text goes on in NAME.1, NAME.2, ...
void set_long(const hdf5::Attributes& attributes, const std::string& name,
              const std::string& text) {
  constexpr std::size_t most = 60000;
  attributes.set(name, text.substr(0, most));
  for (std::size_t part = 1; part * most < text.size(); ++part)
    attributes.set(fmt::format("{}.{}", name, part), text.substr(part * most, most));
}

/// How the conversations of the data are written: whoever asks the trained model writes its
/// questions so, too. Samples without a mask or a prompt hold no conversations.
void describe_chat(const hdf5::Attributes& attributes, const hdf5::Group& split,
                   const Encoder& encoder) {
  const auto columns = split.members();
  const auto holds = [&](const char* column) {
    return std::ranges::find(columns, column) != columns.end();
  };
  if (!holds("loss_mask") && !holds("prompt")) return;
  const auto source = encoder.chat_source();
  if (source.jinja.empty()) return;
  set_long(attributes, "chat_template", source.jinja);
  set_long(attributes, "chat_template_tools", source.tool_use);
  attributes.set("chat_tokens", dumped(nlohmann::json(source.tokens)));
  attributes.set("chat_form", encoder.form());
}

/// Everything but the columns, by one process.
void describe_file(const fs::path& path, const Run& run, const std::vector<Source>& sources,
                   const Encoder& encoder, const Plan& plan, const PrepareReport& report) {
  const hdf5::Group root = hdf5::change_file(path);
  const auto attributes = root.attributes();
  attributes.set("format", std::string(data_format));
  attributes.set("version", data_version);
  attributes.set("name", run.recipe.name);
  attributes.set("kind", run.recipe.kind);
  attributes.set("licence", run.recipe.licence);
  attributes.set("recipe", run.recipe.text);
  attributes.set("tokenizer_sha256", encoder.digest());
  attributes.set("rejected", dumped(to_json(report.rejected)));
  attributes.set("changed", dumped(to_json(report.changed)));
  attributes.set("created", now());
  if (!plan.labels.empty()) attributes.set("labels", plan.labels);
  if (!plan.class_weights.empty()) attributes.set("class_weights", plan.class_weights);
  std::vector<std::string> names;
  std::vector<std::string> sums;
  for (const auto& source : sources) {
    names.push_back(source.options.path);
    sums.push_back(source.sha256);
  }
  attributes.set("sources", names);
  attributes.set("sources_sha256", sums);
  for (const auto& [name, samples] : report.samples) {
    const auto split = root.group(name);
    split.attributes().set("sha256", content_sha256(split));
  }
  if (!report.samples.empty())
    describe_chat(attributes, root.group(report.samples.begin()->first), encoder);
  hdf5::flush(root);
}

/// The lists of dropped records in the order of the work: each rank's reading, the decisions, the
/// encoding.
OutFile begin_list(const fs::path& path, Run& run) {
  OutFile list(path);
  for (int rank = 0; rank < run.comm.size(); ++rank) list.write(read_text(run.list_file(rank)));
  list.write(run.ledger.take_list());
  return list;
}

}  // namespace

PrepareReport prepare(const Recipe& recipe, const Registry& registry, const Comm& comm,
                      const Watch& watch) {
  PrepareReport report;
  report.output = recipe.resolve(recipe.output);
  std::optional<Encoder> encoder;
  comm.agree([&] { encoder.emplace(recipe, registry); });
  const WorkFolder work(report.output.string() + ".partial", comm);
  Run run{recipe, comm, watch, work, Ledger(recipe.list_rejected)};

  const auto sources = scan_sources(run);
  const auto reading = read_sources(run, sources, encoder->dataset(), report);
  const auto plan = plan_splits(run, reading);

  const auto file = work.path() / "data.h5";
  const auto list_path = work.path() / "rejected.jsonl";
  std::optional<OutFile> list;
  if (recipe.list_rejected) on_root(comm, [&] { list.emplace(begin_list(list_path, run)); });
  {
    const Records records(work.path(), reading.counts);
    std::optional<hdf5::Group> root;
    work.together([&] { root.emplace(hdf5::create_file(file, comm)); });
    for (const auto& [name, split] : plan.splits)
      report.samples[name] =
          write_split(run, *root, name, plan, *encoder, records, list ? &*list : nullptr);
    work.together([&] { hdf5::flush(*root); });
  }
  report.rejected = run.ledger.dropped();
  report.changed = run.ledger.changed();
  on_root(comm, [&] {
    // Most of it can go to the disk while its content is summed. What fails here fails again below.
    const auto early = std::async(std::launch::async, [&] { sync_to_disk(file); });
    describe_file(file, run, sources, *encoder, plan, report);
    sync_to_disk(file);
    if (list) {
      list->close();
      fs::rename(list_path, report.output.string() + ".rejected.jsonl");
    }
    move_into_place(file, report.output);
  });
  return report;
}

}  // namespace attune
