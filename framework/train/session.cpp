#include "train/session.hpp"

#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <torch/torch.h>

#include <algorithm>

#include "config/document.hpp"
#include "core/host.hpp"
#include "data/store.hpp"
#include "data/sampler.hpp"
#include "parallel/gradients.hpp"
#include "parallel/mpi.hpp"
#include "parallel/shared_weights.hpp"
#include "registry/loader.hpp"
#include "report/record.hpp"
#include "train/adapter_folder.hpp"
#include "train/label_order.hpp"
#include "weights/describe.hpp"
#include "weights/licence.hpp"
#include "weights/model_files.hpp"

namespace attune::train {
namespace {

c10::Device choose_device(const std::string& wanted, const Comm& comm) {
  const bool available = torch::cuda::is_available();
  if (wanted == "cpu" || (wanted == "auto" && !available)) return torch::kCPU;
  if (!available) fail("parallel.device is 'cuda', but this LibTorch finds no GPU: set it to 'cpu' or 'auto', or use a CUDA build of LibTorch");
  if (comm.size() > 1) fail("parallel.device: several ranks on GPUs are not available yet; run one rank, or set it to 'cpu'");
  return c10::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(comm.local_rank()));
}

void check_tokenizer(const Session& s) {
  if (!s.files->tokenizer_problem.empty() && s.comm.root())
    fmt::print(stderr, "warning: {}; so nothing says whether the data were made with this model's tokenizer\n", s.files->tokenizer_problem);
  if (s.files->tokenizer.is_null()) return;
  attune::check_tokenizer(s.config.model.path, tokenizer_size(s.files->tokenizer), s.model->spec().vocabulary);
  const auto made_with = s.data->tokenizer_sha256();
  if (!made_with.empty() && made_with != tokenizer_sha256(s.files->tokenizer))
    fail("{}: was tokenized with another tokenizer than that of {}: prepare it again with tokenizer = \"{}\"", s.config.dataset.path, s.config.model.path,
         s.config.model.path);
}

void check_data(const Session& s) {
  const auto& entry = *s.config.dataset_plugin.entry;
  if (s.data->kind() != entry.name)
    fail("{}: holds samples of kind '{}', but dataset.plugin is '{}': set it to '{}'", s.config.dataset.path, s.data->kind(), entry.name, s.data->kind());
  for (const char* name : {"train", "validation"}) {
    if (!s.data->has(name) || s.data->split(name).size() == 0) fail("{}: the split '{}' is empty: prepare the data with more samples for it", s.config.dataset.path, name);
    if (!s.data->split(name).ragged("tokens")) continue;
    const auto lengths = s.data->split(name).lengths("tokens");
    const auto longest = std::max_element(lengths.begin(), lengths.end());
    if (longest != lengths.end() && s.model->spec().context > 0 && *longest > s.model->spec().context)
      fail("{}: sample {} of '{}' has {} tokens, the model takes at most {}: prepare the data with max_length = {}", s.config.dataset.path,
           longest - lengths.begin(), name, *longest, s.model->spec().context, s.model->spec().context);
  }
  // What the loop will ask of the sampler, before anything is written.
  Sampler(s.data->split("train").size(), s.config.train.global_batch, s.config.run.seed, s.comm.size());
}

/// Mixed precision.
void round_operands(Model& model, c10::Device device, const Comm& comm) {
  for (const auto& [name, linear] : nn::linears(model.module())) linear->rounds_operands = true;
  model.projection().rounds_operands = true;  // also one that shares its weight and is no module
  if (comm.root() && device.is_cpu() && !multiplies_bfloat16())
    fmt::print(stderr, "warning: this processor does not multiply bfloat16 (no AVX512_BF16 and no AMX): train.precision = \"bfloat16\" is slower here than \"float32\"\n");
}

std::vector<Strategies::Named> build_strategies(const config::RunConfig& config) {
  std::vector<Strategies::Named> list;
  for (const auto& chosen : config.strategies) list.push_back({chosen.entry->name, chosen.build<Strategy>()});
  return list;
}

bool is_classifier(const Model& model) {
  return model.spec().task == Task::classification || model.spec().task == Task::token_classification;
}

void start_from_adapter(Session& s) {
  identify_base(s);
  const auto& folder = s.config.adapter;
  s.comm.agree([&] {
    const auto made_for = base_of_adapter(folder);
    if (!made_for.empty() && made_for != s.base_sha256)
      fail("{}: is an adapter for another base model (its sha256 is {}..., that of {} is {}...): take the base it was trained on", folder, made_for.substr(0, 12), s.config.model.path,
           s.base_sha256.substr(0, 12));
    auto adapter = read_adapter(folder);
    if (is_classifier(*s.model)) order_head(adapter, *s.model, label_order(s.files->config, s.data->labels()));
    s.strategies->load_adapter(*s.model, adapter, folder);
  });
}

}  // namespace

std::shared_ptr<Model> build_model(const Session& s, const config::Chosen& plugin, ModelFiles& files) {
  SharedWeights weights(std::move(files.weights), s.comm);
  ModelContext context{files.config, weights, s.data->labels()};
  auto model = plugin.build<Model>(&context);
  if (is_classifier(*model)) order_head(*model, label_order(files.config, s.data->labels()));
  model->module().to(s.device, s.config.model.dtype == "bfloat16" ? torch::kBFloat16 : torch::kFloat32);
  return model;
}

std::shared_ptr<ModelFiles> open_model_files(const std::string& path, const Comm& comm) {
  auto files = std::make_shared<ModelFiles>();
  on_root(comm, [&] { *files = ModelFiles::open(path); });
  const auto config = comm.broadcast(comm.root() ? files->config.dump() : std::string());
  if (!comm.root()) files->config = nlohmann::json::parse(config);
  return files;
}

Session Session::open(const config::RunConfig& config, const Comm& comm) {
  Session s;
  s.config = config;
  s.comm = comm;
  s.device = choose_device(config.parallel.device, comm);
  s.files = open_model_files(config.model.path, comm);
  on_root(comm, [&] {
    check_architecture(*s.files, *config.registry);
    check_licence(*s.files, config.model.allowed_licences);
  });
  s.data = std::make_shared<DataFile>(DataFile::open(config.dataset.path, comm));
  s.dataset = config.dataset_plugin.build<Dataset>();

  torch::manual_seed(config.run.seed);  // new heads and adapters
  s.model = build_model(s, config.model_plugin, *s.files);
  s.model->set_recompute(config.train.recompute);
  if (config.train.precision == "bfloat16") round_operands(*s.model, s.device, comm);
  s.strategies = std::make_shared<Strategies>(build_strategies(config));
  comm.agree([&] {
    s.strategies->prepare(*s.model);
    check_data(s);
    for (const auto& chosen : config.callbacks) s.callbacks.push_back(chosen.build<Callback>());
  });
  on_root(comm, [&] { check_tokenizer(s); });
  if (!config.adapter.empty()) start_from_adapter(s);
  parallel::broadcast_parameters(s.strategies->state(*s.model), comm);
  return s;
}

OpenedRun open_run(const std::filesystem::path& file, const std::vector<std::string>& overrides, const Comm& comm) {
  OpenedRun run;
  run.registry = std::make_shared<Registry>();
  comm.agree([&] {
    const auto document = file.extension() == ".json" ? config::Document::parse_text(read_record(file).run_file, file, overrides) : config::Document::parse(file, overrides);
    auto places = further_plugin_places();
    for (auto& place : config::plugin_places(document)) places.push_back(std::move(place));
    load_plugins(*run.registry, places);
    load_named_plugins(*run.registry, own_plugin_folders(), config::plugin_names(document));
    run.config = config::read_run(document, *run.registry);
  });
  std::string identity;
  for (const auto& [plugin, file] : run.config.plugin_files()) identity += plugin + "\n";
  comm.agree([&] {
    if (comm.size() > 1)
      for (const auto& other : comm.gather(identity))
        if (other != identity) fail("the ranks found different plugins: rank {} has\n{}another has\n{}", comm.rank(), identity, other);
  });
  return run;
}

void identify_base(Session& session) {
  if (!session.base_sha256.empty()) return;
  std::string sha256;
  on_root(session.comm, [&] { sha256 = weights_sha256(*session.files); });
  session.base_sha256 = session.comm.broadcast(sha256);
}

}  // namespace attune::train
