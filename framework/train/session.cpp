#include "train/session.hpp"

#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/parameter.hpp>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <set>

#include "config/document.hpp"
#include "core/cache.hpp"
#include "core/host.hpp"
#include "data/store.hpp"
#include "data/sampler.hpp"
#include "device/device.hpp"
#include "strategy/base_parameters.hpp"
#include "strategy/inputs.hpp"
#include "nn/planned.hpp"
#include "parallel/gradients.hpp"
#include "parallel/mpi.hpp"
#include "placement/devices.hpp"
#include "weights/shared_weights.hpp"
#include "registry/loader.hpp"
#include "run_directory/record.hpp"
#include "train/adapter_folder.hpp"
#include "train/frozen_base.hpp"
#include "train/label_order.hpp"
#include "train/plan.hpp"
#include "train/publish.hpp"
#include "weights/describe.hpp"
#include "weights/licence.hpp"
#include "weights/model_files.hpp"
#include "weights/shapes.hpp"

namespace attune::train {
namespace {

void check_tokenizer(const Session& s) {
  if (!s.files->tokenizer_problem.empty() && s.mesh.world.root())
    fmt::print(stderr,
               "warning: {}; it is therefore unknown whether the data were made with this model's "
               "tokenizer\n",
               s.files->tokenizer_problem);
  if (s.files->tokenizer.is_null()) return;
  attune::check_tokenizer(s.config.model.path, tokenizer_size(s.files->tokenizer),
                          s.model->spec().vocabulary);
  const auto made_with = s.data->tokenizer_sha256();
  if (!made_with.empty() && made_with != tokenizer_sha256(s.files->tokenizer))
    fail(
        "{}: was tokenized with a different tokenizer than that of {}: prepare it again with "
        "tokenizer = \"{}\"",
        s.config.dataset.path, s.config.model.path, s.config.model.path);
}

void check_data(const Session& s) {
  const auto& entry = *s.config.dataset_plugin.entry;
  if (s.data->kind() != entry.name)
    fail("{}: contains samples of kind '{}', but dataset.plugin is '{}': set it to '{}'",
         s.config.dataset.path, s.data->kind(), entry.name, s.data->kind());
  constexpr std::int64_t first[] = {0};
  for (const char* name : {"train", "validation"}) {
    if (!s.data->has(name) || s.data->split(name).size() == 0)
      fail("{}: the split '{}' is empty: prepare the data with more samples for it",
           s.config.dataset.path, name);
    check_inputs(*s.model, load_batch(s.data->split(name), *s.dataset, first));
    if (!s.data->split(name).ragged("tokens") || s.model->spec().vocabulary == 0) continue;
    const auto lengths = s.data->split(name).lengths("tokens");
    const auto longest = std::max_element(lengths.begin(), lengths.end());
    if (longest != lengths.end() && s.model->spec().context > 0 &&
        *longest > s.model->spec().context)
      fail(
          "{}: sample {} of '{}' has {} tokens, but the model takes at most {}: prepare the data "
          "with max_length = {}",
          s.config.dataset.path, longest - lengths.begin(), name, *longest, s.model->spec().context,
          s.model->spec().context);
  }
  // What the loop will ask of the sampler, before anything is written.
  Sampler(s.data->split("train").size(), s.config.train.global_batch, s.config.run.seed,
          s.mesh.data.size());
}

/// Mixed precision.
void round_operands(Model& model, c10::Device device, const Comm& world) {
  for (const auto& [name, linear] : nn::linears(model.module())) linear->rounds_operands = true;
  model.projection().rounds_operands = true;  // also one that shares its weight and is no module
  if (world.root() && device.is_cpu() && !multiplies_bfloat16())
    fmt::print(stderr,
               "warning: this CPU has no bfloat16 instructions (AVX512_BF16 or AMX): "
               "train.precision = \"bfloat16\" is slower here than \"float32\"\n");
}

std::vector<Strategies::Named> build_strategies(const config::RunConfig& config) {
  std::vector<Strategies::Named> list;
  for (const auto& chosen : config.strategies)
    list.push_back({chosen.entry->name, chosen.build<Strategy>()});
  return list;
}

bool is_classifier(const Model& model) {
  return model.spec().task == Task::classification ||
         model.spec().task == Task::token_classification;
}

void start_from_adapter(Session& s) {
  if (!s.is_planned) identify_base(s);
  const auto& folder = s.config.adapter;
  s.mesh.world.agree([&] {
    const auto made_for = base_of_adapter(folder);
    if (!s.is_planned && !made_for.empty() && made_for != s.base_sha256)
      fail(
          "{}: is an adapter for another base model (its sha256 is {}..., that of {} is {}...): "
          "use the base model it was trained on",
          folder, made_for.substr(0, 12), s.config.model.path, s.base_sha256.substr(0, 12));
    auto adapter = read_adapter(folder);
    for (const auto& [name, parameter] : nn::trained_base_parameters(*s.model))
      s.base_values.emplace_back(parameter, parameter.detach().clone());
    if (is_classifier(*s.model))
      order_head(adapter, *s.model, label_order(s.files->config, s.data->labels()));
    s.strategies->load_adapter(*s.model, adapter, folder);
  });
}

}  // namespace

std::shared_ptr<Model> build_model(const Session& s, const config::Chosen& plugin,
                                   ModelFiles& files) {
  SharedWeights weights(std::move(files.weights), s.mesh.world, s.memory);
  Shapes shapes(weights);
  const auto dtype =
      s.config.model.dtype == config::FloatType::bfloat16 ? at::kBFloat16 : at::kFloat;
  const nn::ParametersOn where(s.device, dtype);
  ModelContext context{files.config, s.is_planned ? static_cast<WeightSource&>(shapes) : weights,
                       s.data->labels()};
  auto model = plugin.build<Model>(&context);
  if (is_classifier(*model)) order_head(*model, label_order(files.config, s.data->labels()));
  model->module().eval();
  model->module().to(s.device, dtype);  // what is no parameter
  return model;
}

std::shared_ptr<ModelFiles> open_model_files(const std::string& path, const Comm& world) {
  auto files = std::make_shared<ModelFiles>();
  on_root(world, [&] { *files = ModelFiles::open(path); });
  const auto config = world.broadcast(world.root() ? files->config.dump() : std::string());
  if (!world.root()) files->config = nlohmann::json::parse(config);
  return files;
}

namespace {

/// A library of a plugin's author may change without another version; Attune's own have Attune's.
std::map<std::string, std::string> hashes_of_foreign_plugins(const config::RunConfig& config) {
  const auto own = own_plugin_folders();
  std::map<std::string, std::string> hashes;
  for (const auto& [plugin, file] : config.plugin_files()) {
    const auto folder = std::filesystem::path(file).parent_path();
    if (!file.empty() && std::ranges::find(own, folder) == own.end())
      hashes[plugin] = cached_sha256_of_file(file);
  }
  return hashes;
}

/// What the run consists of, and is refused for, but for its model's values. Returns the weights as
/// they were read.
BaseValues assemble(Session& s) {
  const auto& config = s.config;
  s.files = open_model_files(config.model.path, s.mesh.world);
  on_root(s.mesh.world, [&] {
    check_architecture(*s.files, *config.registry);
    check_licence(*s.files, config.model.allowed_licences);
  });
  s.data = std::make_shared<DataFile>(DataFile::open(config.dataset.path, s.mesh.world));
  s.dataset = config.dataset_plugin.build<Dataset>();
  s.plugin_files = hashes_of_foreign_plugins(config);

  torch::manual_seed(config.run.seed);  // new heads and adapters
  s.model = build_model(s, config.model_plugin, *s.files);
  if (config.train.precision == config::FloatType::bfloat16)
    round_operands(*s.model, s.device, s.mesh.world);
  s.strategies = std::make_shared<Strategies>(build_strategies(config));
  BaseValues base(*s.model);
  s.mesh.world.agree([&] {
    s.needs_values = !as_far_as_planned(s, [&] { s.strategies->prepare(*s.model); });
    s.base_is_changed = !base.are_those_of(*s.model);
    s.model->module().eval();  // whether a pass trains is its context's to say
    check_data(s);
    for (const auto& chosen : config.callbacks) s.callbacks.push_back(chosen.build<Callback>());
  });
  if (s.memory) {
    hold_frozen_once(*s.model, base, *s.memory);
    if (!holds_trained_once(s)) hold_trained_apart(*s.model);
  }
  on_root(s.mesh.world, [&] { check_tokenizer(s); });
  return base;
}

}  // namespace

void tell_obstacle(const Session& s, const char* of_what, const std::string& mine) {
  std::set<std::string> obstacles;
  for (const auto& each : s.mesh.world.gather(mine.empty() ? "" : host_name() + ": " + mine))
    if (!each.empty()) obstacles.insert(each);
  if (!obstacles.empty() && s.mesh.world.root())
    fmt::print(stderr,
               "note: ranks of a node cannot share the memory of {}, so each holds its own copy "
               "({}); start fewer ranks per node if memory is short\n",
               of_what, fmt::join(obstacles, "; "));
}

bool offloads_optimizer(const Session& session) {
  return session.config.parallel.offload == config::Offload::optimizer &&
         computes_on_accelerator(session);
}

parallel::Transport transport_of(const config::RunConfig& config) {
  return config.parallel.collectives == config::Collectives::mpi ? parallel::Transport::mpi
                                                                 : parallel::Transport::automatic;
}

parallel::Sharded sharded_of(const config::RunConfig& config) {
  switch (config.parallel.shard) {
    case config::Shard::optimizer: return parallel::Sharded::optimizer;
    case config::Shard::gradients: return parallel::Sharded::gradients;
    case config::Shard::weights: return parallel::Sharded::weights;
    case config::Shard::none: break;
  }
  return parallel::Sharded::nothing;
}

namespace {

bool is_planned_for_a_job(const Session& session) {
  return session.is_planned && session.mesh.data.size() == 1;
}

}  // namespace

int ranks_of_run(const Session& session) {
  const auto& asked = session.config.asked;
  if (!is_planned_for_a_job(session)) return session.mesh.data.size();
  return static_cast<int>(asked.nodes.value_or(1) * asked.tasks_per_node.value_or(1));
}

int ranks_of_node(const Session& session) {
  if (!is_planned_for_a_job(session)) return session.mesh.node.size();
  return static_cast<int>(session.config.asked.tasks_per_node.value_or(1));
}

int ranks_of_copy(const Session& session) {
  if (sharded_of(session.config) == parallel::Sharded::nothing) return 1;
  const auto copies = session.config.parallel.replicas;
  return static_cast<int>(std::max<std::int64_t>(1, ranks_of_run(session) / copies));
}

bool holds_trained_once(const Session& session) {
  return sharded_of(session.config) == parallel::Sharded::weights && ranks_of_copy(session) > 1;
}

void check_shard(const Session& s) {
  if (holds_trained_once(s) && computes_on_accelerator(s))
    fail(
        "parallel.shard is \"weights\", which shares the memory of CPUs: on GPUs set it to "
        "\"gradients\"");
}

void check_copies(const config::ParallelOptions& parallel, std::int64_t ranks) {
  if (ranks % parallel.replicas == 0) return;
  fail(
      "parallel.replicas is {}, which does not divide the run's {} rank{}: give a divisor, such as "
      "the number of nodes, or leave it out",
      parallel.replicas, ranks, ranks == 1 ? "" : "s");
}

namespace {

/// The strategies' state that may differ between ranks: what is new. Weights as they were read are
/// the same, and would be copied by being written to.
std::vector<NamedTensor> state_to_spread(const Session& s, const BaseValues& base) {
  auto state = s.strategies->state(*s.model);
  if (holds_trained_once(s))
    std::erase_if(state, [&](const NamedTensor& named) {
      return base.are_those_of(named.first, named.second);
    });
  return state;
}

}  // namespace

Session Session::open(const config::RunConfig& config, const Mesh& mesh) {
  Session s;
  s.config = config;
  s.mesh = mesh;
  s.device = placement::choose_device(config.parallel.device, mesh);
  // those of the CPU are anyway
  if (config.parallel.reproducible && !s.device.is_cpu()) device::use_deterministic_operators();
  if (s.device.is_cpu()) s.memory = std::make_shared<parallel::NodeMemory>(mesh.node);
  const auto base = assemble(s);
  if (s.memory) tell_obstacle(s, "the base model", s.memory->obstacle());
  if (!config.adapter.empty()) start_from_adapter(s);
  parallel::broadcast_parameters(state_to_spread(s, base), mesh.data);
  return s;
}

Session Session::plan(const config::RunConfig& config, const Mesh& mesh) {
  Session s;
  s.config = config;
  s.mesh = mesh;
  s.device = c10::kMeta;
  s.is_planned = true;
  if (ranks_of_run(s) > 1)  // one process may plan a run of more
    mesh.world.agree([&] {
      check_copies(config.parallel, ranks_of_run(s));
      check_shard(s);
    });
  const nn::PlannedOnAccelerator where(computes_on_accelerator(s));
  const nn::TensorMeter meter;
  assemble(s);
  if (s.needs_values) return s;
  const bool has_started = as_far_as_planned(s, [&] {
    if (!config.adapter.empty()) start_from_adapter(s);
  });
  on_root(mesh.world, [&] { check_publishable(s); });
  if (has_started) plan_steps(s, meter);
  return s;
}

namespace {

/// Whether the run that was started in the folder has its directory where the file is: not so for a
/// copy of the directory, or of all of its project.
bool is_run_of(const std::filesystem::path& folder, const config::Document& run,
               const std::filesystem::path& file) {
  const auto output = run.root["output"].value_or(config::RunOptions{}.output);
  const auto name = run.root["name"].value_or(std::string());
  const auto directory = std::filesystem::path(config::reached_from(folder, output)) / name;
  std::error_code ignored;
  return std::filesystem::equivalent(directory, std::filesystem::absolute(file).parent_path(),
                                     ignored);
}

}  // namespace

config::Document run_document(const std::filesystem::path& file,
                              const std::vector<std::string>& overrides) {
  const auto text = file.extension() == ".json" ? run_directory::read_recorded_inputs(file).run_file
                                                : read_text(file);
  auto document = config::Document::parse_text(text, file, overrides);
  const auto folder = run_directory::folder_of_paths(file);
  if (!folder.empty() && is_run_of(folder, config::Document::parse_text(text, file), file))
    document.folder = folder;
  return document;
}

OpenedRun open_run(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const Comm& world) {
  OpenedRun run;
  run.mesh = Mesh::make(world);
  run.registry = std::make_shared<Registry>();
  world.agree([&] {
    const auto document = run_document(file, overrides);
    auto places = further_plugin_places();
    for (auto& place : config::plugin_places(document)) places.push_back(std::move(place));
    load_plugins(*run.registry, places);
    load_named_plugins(*run.registry, own_plugin_folders(), config::plugin_names(document));
    run.config = config::read_run(document, *run.registry);
    if (run.config.parallel.reproducible) device::choose_deterministic_libraries();
  });
  std::string identity;
  for (const auto& [plugin, file] : run.config.plugin_files()) identity += plugin + "\n";
  world.agree([&] {
    if (world.size() > 1)
      for (const auto& other : world.gather(identity))
        if (other != identity)
          fail("the ranks found different plugins: rank {} has\n{}another rank has\n{}",
               world.rank(), identity, other);
  });
  return run;
}

Session planned_copy(const Session& session) {
  Session copy;
  copy.config = session.config;
  copy.device = c10::kMeta;
  copy.is_planned = true;
  copy.data = session.data;
  copy.files = open_model_files(session.config.model.path, copy.mesh.world);
  copy.model = build_model(copy, session.config.model_plugin, *copy.files);
  copy.strategies = std::make_shared<Strategies>(build_strategies(session.config));
  copy.needs_values = !as_far_as_planned(copy, [&] { copy.strategies->prepare(*copy.model); });
  return copy;
}

bool computes_on_accelerator(const Session& session) {
  if (!session.is_planned) return !session.device.is_cpu();
  const auto& parallel = session.config.parallel;
  const bool may_have_one =
      device::count() > 0 || session.config.asked.gpus_per_node.value_or(0) > 0;
  return parallel.wants_accelerator() || (parallel.device == "auto" && may_have_one);
}

void identify_base(Session& session) {
  if (!session.base_sha256.empty()) return;
  std::string sha256;
  on_root(session.mesh.world, [&] { sha256 = weights_sha256(*session.files); });
  session.base_sha256 = session.mesh.world.broadcast(sha256);
}

}  // namespace attune::train
