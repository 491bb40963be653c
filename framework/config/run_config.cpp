#include "config/run_config.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <iterator>
#include <regex>

#include "config/document.hpp"
#include "config/slurm_options.hpp"
#include "core/names.hpp"
#include "device/device.hpp"

namespace attune::config {

void RunOptions::describe(Schema<RunOptions>& s) {
  s.key("name", &RunOptions::name, "name of the run and of its run directory")
      .required()
      .is(OptionRole::location);
  s.key("seed", &RunOptions::seed,
        "random seed of the sample order, of newly initialized weights and of dropout")
      .at_least(0);
  s.key("output", &RunOptions::output, "parent folder of the run directories")
      .path()
      .is(OptionRole::location);
  s.key("plugins", &RunOptions::plugins,
        "additional plugin files, or folders to search for plugins")
      .path()
      .is(OptionRole::location);
}

void ModelOptions::describe(Schema<ModelOptions>& s) {
  s.key("path", &ModelOptions::path,
        "base model: a Hugging Face folder (config.json, *.safetensors, tokenizer.json) or a .gguf "
        "file")
      .path()
      .required()
      .is(OptionRole::location);
  s.key("dtype", &ModelOptions::dtype, "data type of the model weights and of the computation",
        {{"float32", FloatType::float32}, {"bfloat16", FloatType::bfloat16}});
  s.key("allowed_licences", &ModelOptions::allowed_licences,
        "licences that the base model may have; a run with another or an unstated licence is "
        "refused; empty: any licence")
      .is(OptionRole::location);
}

void DatasetOptions::describe(Schema<DatasetOptions>& s) {
  s.key("path", &DatasetOptions::path, "path of an HDF5 file made by `attune prepare`")
      .path()
      .required()
      .is(OptionRole::location);
  s.key("shuffle_block", &DatasetOptions::shuffle_block,
        "shuffle granularity: contiguous samples read together; 1 shuffles single samples")
      .at_least(1);
}

void StrategyOptions::describe(Schema<StrategyOptions>& s) {
  s.key("adapter", &StrategyOptions::adapter,
        "adapter folder in PEFT's layout to start from; empty: a new adapter")
      .path();
}

void TrainOptions::describe(Schema<TrainOptions>& s) {
  s.key("steps", &TrainOptions::steps,
        "length of the run in optimizer steps; set either this or `epochs`")
      .at_least(0);
  s.key("epochs", &TrainOptions::epochs,
        "length of the run in passes over the training split; set either this or `steps`")
      .at_least(0);
  s.key("global_batch", &TrainOptions::global_batch,
        "samples per optimizer step, summed over all ranks")
      .at_least(1);
  s.key("micro_batch", &TrainOptions::micro_batch,
        "samples per forward pass on one rank; auto: as many as fit in memory")
      .at_least(1)
      .or_word("auto", 0);
  s.key("micro_tokens", &TrainOptions::micro_tokens,
        "token budget per micro-batch, used instead of `micro_batch`; 0 disables it")
      .at_least(0);
  s.key("group_lengths", &TrainOptions::group_lengths,
        "group samples of similar length within each step into the same micro-batch");
  s.key("recompute", &TrainOptions::recompute,
        "activation checkpointing: keep only each block's input and recompute the block in the "
        "backward pass; identical results, less memory, about a third more time")
      .is(OptionRole::location);
  s.key("precision", &TrainOptions::precision,
        "precision of matrix products; bfloat16: mixed precision with bfloat16 operands, float32 "
        "accumulation, and float32 weights and optimizer state",
        {{"float32", FloatType::float32}, {"bfloat16", FloatType::bfloat16}});
  s.key("prefix_cache", &TrainOptions::prefix_cache,
        "data type of an on-disk cache of the frozen blocks below the first trainable layer: their "
        "output is computed once per sample and reused; off: no cache",
        {{"off", HiddenCache::off},
         {"float32", HiddenCache::float32},
         {"bfloat16", HiddenCache::bfloat16}});
  s.key("prefix_folder", &TrainOptions::prefix_folder,
        "folder of the prefix cache, such as a node-local disk; empty: .prefix next to the run "
        "directories, shared by runs with the same base model and data")
      .path()
      .is(OptionRole::location);
  s.key("optimizer", &TrainOptions::optimizer,
        "name of the optimizer plugin; to set its options, use the section [optimizer] instead");
  s.key("learning_rate", &TrainOptions::learning_rate,
        "peak learning rate, reached at the end of the warm-up")
      .above(0);
  s.key("weight_decay", &TrainOptions::weight_decay,
        "decoupled weight decay, applied to matrices only")
      .at_least(0);
  s.key("warmup", &TrainOptions::warmup, "warm-up as a fraction of all steps").range(0, 1);
  s.key("schedule", &TrainOptions::schedule,
        "name of the schedule plugin that sets the learning rate after the warm-up; to set its "
        "options, use the section [schedule] instead");
  s.key("clip", &TrainOptions::clip, "maximum global gradient norm; 0 disables clipping")
      .at_least(0);
  s.key(
       "on_not_finite", &TrainOptions::on_not_finite,
       "reaction to a NaN or infinite loss or gradient: end the run, or skip the step and count it",
       {{"stop", NotFinite::stop}, {"skip", NotFinite::skip}})
      .is(OptionRole::location);
  s.key("time_limit", &TrainOptions::time_limit,
        "wall-clock limit before which the run saves a checkpoint and ends: minutes or "
        "[days-]hours:minutes:seconds; empty: the Slurm job's limit")
      .is(OptionRole::location);
}

void EvaluateOptions::describe(Schema<EvaluateOptions>& s) {
  s.key("every", &EvaluateOptions::every,
        "steps between evaluations; 0: evaluate only before and after the run")
      .at_least(0);
  s.key("samples", &EvaluateOptions::samples,
        "number of samples to evaluate, from the start of the validation split; 0: all")
      .at_least(0);
  s.key("micro_batch", &EvaluateOptions::micro_batch,
        "samples per forward pass on one rank during evaluation")
      .at_least(1);
}

void CheckpointOptions::describe(Schema<CheckpointOptions>& s) {
  s.key("every", &CheckpointOptions::every, "steps between checkpoints; 0: only at the end")
      .at_least(0)
      .is(OptionRole::location);
  s.key("keep", &CheckpointOptions::keep, "number of most recent checkpoints to keep; 0: all")
      .at_least(0)
      .is(OptionRole::location);
  s.key("keep_best", &CheckpointOptions::keep_best,
        "metric whose best state is additionally kept as the checkpoint 'best'; the metric's "
        "declaration says whether larger or smaller is better; empty: none")
      .names_metric()
      .is(OptionRole::location);
  s.key("staged", &CheckpointOptions::staged,
        "write checkpoints in the background from a copy in memory; false: training waits for the "
        "write and needs no copy")
      .is(OptionRole::location);
}

namespace {

std::vector<std::string> device_names() {
  auto names = device::kinds();
  names.insert(names.begin(), "auto");
  return names;
}

}  // namespace

void ParallelOptions::describe(Schema<ParallelOptions>& s) {
  s.key("mode", &ParallelOptions::mode,
        "parallelism; data: every rank holds the whole model and computes its share of the batch")
      .choices({"data"})
      .is(OptionRole::location);
  s.key("device", &ParallelOptions::device,
        "device to compute on, one for each rank; auto: a GPU if LibTorch finds one, else the CPU; "
        "cuda: also AMD's GPUs; a Slurm job with GPUs fails if LibTorch finds none")
      .choices(device_names())
      .is(OptionRole::location);
  s.key("threads", &ParallelOptions::threads,
        "threads per rank; 0: OMP_NUM_THREADS if set, else the number of cores that the rank owns")
      .at_least(0);
  s.key("binding", &ParallelOptions::binding,
        "CPU binding under mpirun; auto: replace mpirun's default binding by one that spreads the "
        "ranks over all cores of the run; keep: leave mpirun's binding unchanged",
        {{"auto", Binding::automatic}, {"keep", Binding::keep}})
      .is(OptionRole::location);
  s.key("collectives", &ParallelOptions::collectives,
        "what sums over ranks on GPUs; auto: NCCL or RCCL if LibTorch brings it, else MPI; mpi: "
        "MPI, through the host's memory; ranks on CPUs always use MPI",
        {{"auto", Collectives::automatic}, {"mpi", Collectives::mpi}})
      .is(OptionRole::location);
  s.key(
       "shard", &ParallelOptions::shard,
       "what the ranks hold together, each its part, to save memory; none: every rank holds "
       "everything; optimizer: the optimizer's state is divided (ZeRO stage 1); gradients: also "
       "the gradients (stage 2); weights: also the trained weights, which the ranks of a node hold "
       "once; on CPUs alone",
       {{"none", Shard::none},
        {"optimizer", Shard::optimizer},
        {"gradients", Shard::gradients},
        {"weights", Shard::weights}})
      .is(OptionRole::location);
  s.key(
       "replicas", &ParallelOptions::replicas,
       "copies of what is divided by `shard`, each on consecutive ranks; with the number of nodes, "
       "each node holds a copy and shards stay within nodes; must divide the number of ranks")
      .at_least(1)
      .is(OptionRole::location);
  s.key("offload", &ParallelOptions::offload,
        "what is kept in the host's memory instead of a GPU's, at the cost of slower steps; "
        "optimizer: the optimizer's state and its update; no effect on CPUs",
        {{"none", Offload::none}, {"optimizer", Offload::optimizer}})
      .is(OptionRole::location);
  s.key("reproducible", &ParallelOptions::reproducible,
        "make the weights bitwise identical on any number of ranks, at the cost of slower steps");
  s.key("watchdog", &ParallelOptions::watchdog,
        "seconds without progress after which all ranks abort and name the late rank; 0 disables "
        "the watchdog")
      .at_least(0)
      .is(OptionRole::location);
}

namespace {

constexpr const char* always_called[] = {"progress", "jsonl"};

/// A reader that collects every mistake of one document.
class Reader {
 public:
  Reader(const Document& document, const Registry& registry)
      : root_(document.root),
        folder_(document.folder),
        is_new_(!folder_.empty() && (is_given(root_, "name") || is_given(root_, "output"))),
        registry_(registry) {
    config_.file = document.path;
    if (!is_new_) config_.folder = folder_;
    problems_.look_elsewhere([this](const std::string& key) { return where_is(key); });
  }

  RunConfig read() {
    refuse_other_files();
    read_top_level();
    config_.registry = &registry_;
    config_.model_plugin = read_plugin_section("model", Kind::model, &config_.model);
    config_.dataset_plugin = read_plugin_section("dataset", Kind::dataset, &config_.dataset);
    read_strategies();
    read_train();
    config_.optimizer = read_choice_of_training(Kind::optimizer, config_.train.optimizer);
    config_.schedule = read_choice_of_training(Kind::schedule, config_.train.schedule);
    check_short_options();
    read_section("evaluate", &config_.evaluate);
    read_section("parallel", &config_.parallel);
    read_slurm();
    read_callbacks();
    read_section("checkpoint", &config_.checkpoint);
    check_contradictions();
    problems_.throw_if_any();
    return std::move(config_);
  }

 private:
  void read_top_level() {
    bind(root_, describe<RunOptions>(), &config_.run, sections());
    if (is_new_) config_.run.output = root_["output"].value_or(RunOptions{}.output);
    config_.effective.emplace_back("", listed(root_, describe<RunOptions>(), &config_.run));
    if (const auto* name = root_.get_as<std::string>("name"))
      if (const auto objection = objection_to_name(name->get()); !objection.empty())
        problems_.add(name->source(), objection);
    if (const auto* output = root_.get_as<std::string>("output"))
      if (const auto objection = objection_to_folder(output->get()); !objection.empty())
        problems_.add(output->source(), objection);
  }

  static const std::vector<std::string>& sections() {
    static const std::vector<std::string> names{"model",     "dataset",  "strategy", "train",
                                                "optimizer", "schedule", "evaluate", "checkpoint",
                                                "callback",  "parallel", "slurm"};
    return names;
  }

  /// Recipes and sweep files are TOML files of Attune's as well.
  void refuse_other_files() {
    if (root_.contains("model") || root_.contains("dataset") || root_.contains("strategy")) return;
    const auto file = config_.file.string();
    if (root_.contains("kind") && root_.contains("source"))
      fail("{}: is a recipe, not a run file: give it to `attune prepare`", file);
    if (root_.contains("run") && (root_.contains("values") || root_.contains("trial")))
      fail("{}: is a sweep file, not a run file: give it to `attune sweep`", file);
  }

  /// Where a key belongs that is unknown where it stands.
  std::string where_is(const std::string& key) const {
    for (const auto& [section, schema] : framework_sections())
      if (const auto names = names_of(schema); std::ranges::find(names, key) != names.end())
        return section.empty()
                   ? fmt::format("'{}' belongs to the top of the file, before the first [section]",
                                 key)
                   : fmt::format("'{}' belongs to [{}]", key, section);
    if (std::ranges::find(sections(), key) != sections().end())
      return fmt::format("[{}] is a separate section, not part of another one", key);
    std::vector<std::string> owners;
    for (const auto& entry : registry_.entries())
      if (const auto names = names_of(entry.schema); std::ranges::find(names, key) != names.end())
        owners.push_back(fmt::format("the {} '{}'", name(entry.kind), entry.name));
    return owners.empty() ? ""
                          : fmt::format("'{}' is an option of {}", key, joined(owners, " and of "));
  }

  static bool is_given(const toml::table& table, const char* key) {
    const auto* node = table.get(key);
    return node && is_from_command_line(*node);
  }

  std::vector<Setting> listed(const toml::table& table, const OptionSet& schema, const void* object,
                              OptionRole otherwise = OptionRole::setting) const {
    return settings(table, schema, object, otherwise, !is_new_);
  }

  void bind(const toml::table& table, const OptionSet& schema, void* object,
            const std::vector<std::string>& beside = {}) {
    bind_options(table, schema, object, problems_, beside, folder_);
  }

  template <class T>
  void read_section(const std::string& name, T* object) {
    const auto& table = section(root_, name, problems_);
    bind(table, describe<T>(), object);
    config_.effective.emplace_back(name, listed(table, describe<T>(), object));
  }

  /// Without 'optimizer' and 'schedule', whose sections are in effect.
  void read_train() {
    const auto& table = section(root_, "train", problems_);
    bind(table, describe<TrainOptions>(), &config_.train, names_of(short_options()));
    if (!table.contains("micro_batch"))
      config_.train.micro_batch = std::min(config_.train.micro_batch, config_.train.global_batch);
    auto all = listed(table, describe<TrainOptions>(), &config_.train);
    std::erase_if(all, [](const Setting& setting) {
      return setting.name == "optimizer" || setting.name == "schedule";
    });
    config_.effective.emplace_back("train", std::move(all));
  }

  /// What is written in [train]; problems with that section are told already.
  const toml::table& train_table() const {
    const auto* table = root_["train"].as_table();
    return table ? *table : nothing_;
  }

  /// [optimizer] or [schedule]; without it, the plugin that [train] names and the options of it
  /// that stand there.
  Chosen read_choice_of_training(Kind kind, const std::string& named) {
    const std::string key = name(kind);
    const auto* short_form = train_table().get(key);
    if (root_.contains(key)) {
      if (short_form)
        problems_.add(
            short_form->source(),
            fmt::format("'{0}' is also set by [{0}]: keep one of them, or write {0}.plugin", key));
      NoOptions own;
      const auto chosen = read_plugin_section(key, kind, &own);
      check_build(chosen, *root_.get(key));
      return chosen;
    }
    if (misspelled_section(key) || (short_form && !short_form->is_string())) return {};
    Chosen chosen;
    try {
      chosen.entry = &registry_.find(kind, named);
    } catch (const Error& error) {
      problems_.add((short_form ? short_form : &root_)->source(), error.what());
      return {};
    }
    chosen.options = chosen.entry->defaults();
    add_short_form(key, chosen);
    check_build(chosen, short_form ? *short_form : root_);
    return chosen;
  }

  /// Options may contradict each other, which the plugin alone knows.
  void check_build(const Chosen& chosen, const toml::node& where) {
    if (!chosen.entry) return;
    try {
      chosen.entry->build(chosen.options.get(), nullptr);
    } catch (const Error& error) {
      problems_.add(where.source(), fmt::format("{} '{}': {}", name(chosen.entry->kind),
                                                chosen.entry->name, error.what()));
    }
  }

  /// Binds the options of the plugin that stand in [train].
  void add_short_form(const std::string& section_name, const Chosen& chosen) {
    std::vector<std::string> in_train;
    for (const auto& [key, node] : train_table()) in_train.emplace_back(key.str());
    const auto shorts = names_of(short_options());
    OptionSet found;
    std::vector<Setting> all = settings(train_table(), named_key(section_name), &chosen.entry->name,
                                        role_of_name(chosen.entry->kind));
    all.front().name = "plugin";
    for (const auto& option : chosen.entry->schema.options) {
      const bool is_short = section_name == name(Kind::optimizer) &&
                            std::ranges::find(shorts, option.name) != shorts.end();
      if (is_short) bind(train_table(), {{option}}, chosen.options.get(), in_train);
      append(all, settings(is_short ? train_table() : nothing_, {{option}}, chosen.options.get()));
    }
    config_.effective.emplace_back(section_name, std::move(all));
  }

  /// Options of optimizers that run files have in [train] from the time when it had two of them.
  static OptionSet short_options() {
    struct Short {
      double beta1 = 0.9;
      double beta2 = 0.999;
      double epsilon = 1e-8;
      double momentum = 0;
      static void describe(Schema<Short>& s) {
        s.key("beta1", &Short::beta1, "");
        s.key("beta2", &Short::beta2, "");
        s.key("epsilon", &Short::epsilon, "");
        s.key("momentum", &Short::momentum, "");
      }
    };
    return attune::describe<Short>();
  }

  /// Those that the optimizer lacks are refused, unless they have the value that every run
  /// directory of that time has.
  void check_short_options() {
    for (const auto& option : short_options().options) {
      const auto* node = train_table().get(option.name);
      if (!node || !config_.optimizer.entry) continue;
      const auto& plugin = *config_.optimizer.entry;
      const auto has = names_of(plugin.schema);
      if (root_.contains("optimizer"))
        problems_.add(node->source(),
                      fmt::format("'{}' is an option of the optimizer: write it in [optimizer]",
                                  option.name));
      else if (std::ranges::find(has, option.name) == has.end() &&
               node->value<double>() != std::get<double>(option.fallback))
        problems_.add(
            node->source(),
            fmt::format("'{}' is not an option of the optimizer '{}', whose options are {}",
                        option.name, plugin.name, has.empty() ? "none" : joined(has)));
    }
  }

  /// `attune submit` alone acts on [slurm], with what the site says of it; its mistakes are
  /// everybody's.
  void read_slurm() {
    if (!root_.contains("slurm")) return;
    const auto& table = section(root_, "slurm", problems_);
    SlurmOptions options;
    bind_slurm(table, options, problems_);
    auto given = settings(table, describe<SlurmOptions>(), &options, OptionRole::location);
    const auto asked = [&](const char* key, std::int64_t value) {
      return table.contains(key) ? std::optional(value) : std::nullopt;
    };
    config_.asked = {asked("nodes", options.nodes), asked("tasks_per_node", options.tasks_per_node),
                     asked("gpus_per_node", options.gpus_per_node),
                     asked("cpus_per_task", options.cpus_per_task)};
    // the rest is for the site to say
    std::erase_if(given, [&](const Setting& setting) { return !table.contains(setting.name); });
    config_.effective.emplace_back("slurm", std::move(given));
  }

  /// The plugin of that name with its options bound from the table; `beside` are keys there that
  /// are not the plugin's.
  Chosen choose(const toml::table& table, Kind kind, const std::string& name,
                const toml::source_region& where, std::vector<std::string> beside) {
    Chosen chosen;
    try {
      chosen.entry = &registry_.find(kind, name);
    } catch (const Error& error) {
      problems_.add(where, error.what());
      return {};
    }
    chosen.options = chosen.entry->defaults();
    beside.emplace_back("plugin");
    bind(table, chosen.entry->schema, chosen.options.get(), beside);
    return chosen;
  }

  /// [model], [dataset], [strategy]: a plugin's name, its options, and beside them the section's
  /// own.
  template <class T>
  Chosen read_plugin_section(const std::string& section_name, Kind kind, T* own) {
    if (!root_.contains(section_name)) {
      if (!misspelled_section(section_name))
        problems_.add(root_.source(), fmt::format("[{}] is missing", section_name));
      return {};
    }
    if (!root_.get(section_name)->is_table()) {
      section(root_, section_name, problems_);
      return Chosen{};
    }
    return read_plugin_table(section_name, section(root_, section_name, problems_), kind, own);
  }

  /// The unknown key of that is told already.
  bool misspelled_section(const std::string& section_name) const {
    auto known = names_of(attune::describe<RunOptions>());
    known.insert(known.end(), sections().begin(), sections().end());
    return misspelled(root_, section_name, known) != nullptr;
  }

  /// The key that names a plugin without being 'plugin': misspelled, or another word with the name
  /// of one behind it.
  const toml::key* instead_of_plugin(const toml::table& table, Kind kind,
                                     const std::vector<std::string>& own_keys) const {
    auto known = own_keys;
    known.emplace_back("plugin");
    if (const auto* key = misspelled(table, "plugin", known)) return key;
    for (const auto& [key, node] : table)
      if (const auto text = node.value<std::string>();
          text && std::ranges::find(own_keys, key.str()) == own_keys.end())
        if (registry_.has(kind, *text)) return &key;
    return nullptr;
  }

  /// A table without 'plugin'. When another key names one, its options are checked all the same.
  void add_without_plugin(const std::string& section_name, const toml::table& table, Kind kind,
                          const std::vector<std::string>& own_keys) {
    const auto* instead = instead_of_plugin(table, kind, own_keys);
    if (!instead)
      return problems_.add(
          table.source(),
          fmt::format("[{}] needs 'plugin', one of these names: {}", section_name, known(kind)));
    const std::string key(instead->str());
    problems_.add(
        instead->source(),
        fmt::format(
            "unknown key '{}'; did you mean 'plugin'? [{}] needs it, one of these names: {}", key,
            section_name, known(kind)));
    auto beside = own_keys;
    beside.push_back(key);
    if (const auto& node = *table.get(key); node.is_string())
      choose(table, kind, *node.value<std::string>(), node.source(), beside);
  }

  template <class T>
  Chosen read_plugin_table(const std::string& section_name, const toml::table& table, Kind kind,
                           T* own) {
    const auto own_schema = describe<T>();
    std::vector<std::string> own_keys;
    std::vector<std::string> keys;
    for (const auto& option : own_schema.options) own_keys.push_back(option.name);
    for (const auto& [key, node] : table) keys.emplace_back(key.str());
    // unknown keys are judged with the plugin's
    bind(table, own_schema, own, keys);

    const auto* plugin = table.get("plugin");
    if (!plugin) {
      add_without_plugin(section_name, table, kind, own_keys);
      return Chosen{};
    }
    if (!plugin->is_string()) {
      problems_.add(plugin->source(), fmt::format("[{}] needs 'plugin', a name in quotes: {}",
                                                  section_name, known(kind)));
      return Chosen{};
    }
    auto chosen = choose(table, kind, *plugin->value<std::string>(), plugin->source(), own_keys);
    if (!chosen.entry) return chosen;
    auto all = settings(table, plugin_key(), &chosen.entry->name, role_of_name(kind));
    append(all, listed(table, own_schema, own, role_of_options(kind)));
    append(all, listed(table, chosen.entry->schema, chosen.options.get(), role_of_options(kind)));
    config_.effective.emplace_back(section_name, std::move(all));
    return chosen;
  }

  /// Of options that do not declare one.
  static OptionRole role_of_options(Kind kind) {
    return kind == Kind::model || kind == Kind::strategy ? OptionRole::identity
                                                         : OptionRole::setting;
  }
  static OptionRole role_of_name(Kind kind) {
    return kind == Kind::optimizer ? OptionRole::identity : role_of_options(kind);
  }

  /// [strategy], or several as [[strategy]].
  void read_strategies() {
    const auto* list = root_.get_as<toml::array>("strategy");
    if (!list) {
      StrategyOptions own;
      config_.strategies.push_back(read_plugin_section("strategy", Kind::strategy, &own));
      config_.adapter = own.adapter;
      return;
    }
    for (const auto* table : tables("strategy", "strategies")) {
      StrategyOptions own;
      config_.strategies.push_back(read_plugin_table("[strategy]", *table, Kind::strategy, &own));
      if (own.adapter.empty()) continue;
      if (!config_.adapter.empty())
        problems_.add(
            table->get("adapter")->source(),
            "two [[strategy]] entries set 'adapter', the adapter to start from: keep one of them");
      config_.adapter = own.adapter;
    }
  }

  /// Those of [[callback]], then the ones that every run has.
  void read_callbacks() {
    std::vector<std::string> named;
    for (const auto* table : tables("callback", "callbacks")) {
      const auto* plugin = table->get("plugin");
      if (!plugin || !plugin->is_string()) {
        if (!plugin)
          add_without_plugin("[callback]", *table, Kind::callback, {});
        else
          problems_.add(plugin->source(),
                        "[[callback]] needs 'plugin', a name in quotes: " + known(Kind::callback));
        continue;
      }
      named.push_back(*plugin->value<std::string>());
      if (named.back() == "checkpoint") {
        problems_.add(plugin->source(),
                      "'checkpoint' is not a callback: write its options under [checkpoint]");
        continue;
      }
      auto chosen = choose(*table, Kind::callback, named.back(), plugin->source(), {});
      if (!chosen.entry) continue;
      auto all = settings(*table, plugin_key(), &chosen.entry->name);
      append(all, listed(*table, chosen.entry->schema, chosen.options.get()));
      config_.effective.emplace_back("[callback]", std::move(all));
      config_.callbacks.push_back(std::move(chosen));
    }
    for (const std::string always : always_called) {
      if (std::find(named.begin(), named.end(), always) != named.end()) continue;
      auto chosen = choose(nothing_, Kind::callback, always, nothing_.source(), {});
      if (chosen.entry) config_.callbacks.push_back(std::move(chosen));
    }
  }

  std::vector<const toml::table*> tables(const std::string& section, const char* what) {
    std::vector<const toml::table*> tables;
    const auto* node = root_.get(section);
    if (!node) return tables;
    const auto* array = node->as_array();
    if (!array || !array->is_homogeneous<toml::table>()) {
      problems_.add(node->source(),
                    fmt::format("{} are written as [[{}]], each with its 'plugin'", what, section));
      return tables;
    }
    for (const auto& element : *array) tables.push_back(element.as_table());
    return tables;
  }

  void check_contradictions() {
    const auto& table = section(root_, "train", problems_);
    const auto& train = config_.train;
    if (train.steps > 0 && train.epochs > 0)
      problems_.add(table.get("epochs")->source(),
                    "'steps' and 'epochs' contradict each other: give one of them");
    const auto keys = names_of(attune::describe<TrainOptions>());
    const auto is_wrong = [&](const char* key) {
      return misspelled(table, key, keys) || (table.contains(key) && !table.get(key)->is_number());
    };
    const bool is_told = misspelled_section("train") || is_wrong("steps") || is_wrong("epochs");
    if (train.steps == 0 && train.epochs == 0 && !is_told)
      problems_.add((root_.contains("train") ? table : root_).source(),
                    "[train] needs 'steps' or 'epochs'");
    if (train.micro_batch > train.global_batch)
      problems_.add((table.contains("micro_batch") ? table.get("micro_batch") : &table)->source(),
                    fmt::format("'micro_batch' ({}) is larger than 'global_batch' ({})",
                                train.micro_batch, train.global_batch));
    if (config_.parallel.reproducible && train.micro_batch == 0)
      problems_.add(table.get("micro_batch")->source(),
                    "'micro_batch = \"auto\"' depends on the machine's memory, but "
                    "parallel.reproducible requires a fixed value: give a number");
    if (config_.parallel.replicas > 1 && config_.parallel.shard == Shard::none)
      problems_.add(
          section(root_, "parallel", problems_).get("replicas")->source(),
          "'replicas' counts the copies of what is sharded, but nothing is: set "
          "parallel.shard to \"optimizer\", \"gradients\" or \"weights\", or leave it out");
    if (train.precision == FloatType::bfloat16 && config_.model.dtype == FloatType::bfloat16)
      problems_.add(
          table.get("precision")->source(),
          "'precision' = \"bfloat16\" rounds float32 weights for each product, but model.dtype = "
          "\"bfloat16\" already stores rounded weights: set only one of them");
    if (const auto* limit = table.get("time_limit");
        limit && !train.time_limit.empty() && !seconds_of(train.time_limit))
      problems_.add(
          limit->source(),
          fmt::format("'time_limit' is '{}', which is not a time: write minutes, minutes:seconds, "
                      "hours:minutes:seconds or days-hours:minutes:seconds",
                      train.time_limit));
  }

  std::string known(Kind kind) const {
    std::vector<std::string> names;
    for (const auto& entry : registry_.entries())
      if (entry.kind == kind) names.push_back(entry.name);
    return names.empty() ? "none was found" : joined(names);
  }

  /// A key that names a plugin as an option of a std::string, so that it is listed like the others.
  static OptionSet plugin_key() { return named_key("plugin"); }
  static OptionSet named_key(const std::string& key) {
    Option option;
    option.name = key;
    option.get = [](const void* name) {
      return OptionValue(*static_cast<const std::string*>(name));
    };
    return {{option}};
  }

  static void append(std::vector<Setting>& to, const std::vector<Setting>& from) {
    to.insert(to.end(), from.begin(), from.end());
  }

  const toml::table& root_;
  const std::filesystem::path folder_;
  // another run than the one of the file: it is written, and its paths refer, where it is started
  const bool is_new_;
  const Registry& registry_;
  const toml::table nothing_;
  RunConfig config_;
  Problems problems_;
};

}  // namespace

std::vector<std::filesystem::path> plugin_places(const Document& document) {
  std::vector<std::filesystem::path> places;
  const auto* plugins = document.root.get("plugins");
  if (!plugins) return places;
  const auto folder = is_from_command_line(*plugins) ? std::filesystem::path() : document.folder;
  const auto add = [&](const toml::node& node) {
    if (const auto text = node.value<std::string>())
      places.emplace_back(reached_from(folder, *text));
  };
  add(*plugins);
  if (const auto* array = plugins->as_array()) std::ranges::for_each(*array, add);
  return places;
}

std::vector<std::string> plugin_names(const Document& document) {
  std::vector<std::string> names(std::begin(always_called), std::end(always_called));
  const auto add = [&](const toml::node& table) {
    if (const auto* keys = table.as_table())
      if (auto name = (*keys)["plugin"].value<std::string>()) names.push_back(*name);
  };
  for (const auto& [key, otherwise] : {std::pair{"optimizer", "adamw"}, {"schedule", "cosine"}})
    names.push_back(document.root["train"][key].value_or(std::string(otherwise)));
  for (const char* section :
       {"model", "dataset", "strategy", "optimizer", "schedule", "callback"}) {
    const auto* node = document.root.get(section);
    if (!node) continue;
    add(*node);
    if (const auto* list = node->as_array()) std::ranges::for_each(*list, add);
  }
  return names;
}

RunConfig read_run(const Document& document, const Registry& registry) {
  return Reader(document, registry).read();
}

std::optional<double> seconds_of(const std::string& text) {
  static const std::regex form(R"((?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?)");
  std::smatch part;
  if (!std::regex_match(text, part, form)) return {};
  const auto number = [&](int i) { return part[i].matched ? std::stod(part[i]) : 0.0; };
  // As sbatch reads --time: with days the first number is hours; else one number is minutes, two
  // are minutes:seconds.
  if (part[1].matched) return 86400 * number(1) + 3600 * number(2) + 60 * number(3) + number(4);
  if (part[4].matched) return 3600 * number(2) + 60 * number(3) + number(4);
  return 60 * number(2) + number(3);
}

std::vector<std::pair<std::string, std::filesystem::path>> RunConfig::plugin_files() const {
  std::vector<Chosen> chosen{model_plugin, dataset_plugin, optimizer, schedule};
  std::ranges::copy(strategies, std::back_inserter(chosen));
  std::ranges::copy(callbacks, std::back_inserter(chosen));
  std::vector<std::pair<std::string, std::filesystem::path>> files;
  for (const auto& [entry, options] : chosen) {
    const std::pair<std::string, std::filesystem::path> file{entry->plugin, entry->file};
    if (!entry->file.empty() && std::ranges::find(files, file) == files.end())
      files.push_back(file);
  }
  return files;
}

std::string RunConfig::to_toml() const {
  std::string text;
  for (const auto& [section, all] : effective) {
    if (!section.empty()) text += fmt::format("\n[{}]\n", section);
    for (const auto& setting : all) text += setting.name + " = " + setting.value + "\n";
  }
  return text;
}

std::vector<std::pair<std::string, OptionSet>> framework_sections() {
  return {{"", attune::describe<RunOptions>()},
          {"model", attune::describe<ModelOptions>()},
          {"dataset", attune::describe<DatasetOptions>()},
          {"strategy", attune::describe<StrategyOptions>()},
          {"train", attune::describe<TrainOptions>()},
          {"evaluate", attune::describe<EvaluateOptions>()},
          {"checkpoint", attune::describe<CheckpointOptions>()},
          {"parallel", attune::describe<ParallelOptions>()},
          {"slurm", attune::describe<SlurmOptions>()}};
}

}  // namespace attune::config
