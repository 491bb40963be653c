#include "train/publish.hpp"

#include <attune/adapter.hpp>
#include <attune/error.hpp>
#include <attune/linear.hpp>
#include <attune/nn.hpp>
#include <attune/tokenizer.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/store.hpp"
#include "parallel/gathering.hpp"
#include "parallel/mpi.hpp"
#include "run_directory/places.hpp"
#include "train/adapter_folder.hpp"
#include "train/label_order.hpp"
#include "train/plan.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"

namespace attune::train {
namespace fs = std::filesystem;
namespace {

/// What a classifier's targets are, in transformers' words: its pipelines choose softmax, sigmoid
/// or neither by this key. Null for data without targets.
nlohmann::json problem_type(const Session& session) {
  const std::int64_t first[] = {0};
  const auto targets = load_batch(session.data->split("train"), *session.dataset, first).targets;
  if (!targets.defined()) return nullptr;
  if (targets.dim() == 2) return "multi_label_classification";
  return targets.is_floating_point() ? "regression" : "single_label_classification";
}

/// The model's own config.json, without what the source's said of another head or of packed
/// weights.
nlohmann::json exported_config(const Session& session) {
  auto config = session.model->config();
  config.erase("quantization_config");  // the weights were read, and are written, plain
  const auto task = session.model->spec().task;
  if (task != Task::next_token) config.erase("problem_type");
  if (task == Task::classification) config["problem_type"] = problem_type(session);
  if (task == Task::embedding)
    for (const char* key : {"id2label", "label2id", "num_labels"}) config.erase(key);
  return config;
}

/// A form that the recipe names is for models without a template: one that the base has stays what
/// transformers uses.
TrainedChat trained_chat(const Session& session) {
  const auto [trained, form] = session.data->chat();
  const auto own = chat_template_of(session.config.model.path);
  auto jinja = other_chat_template(trained, own);
  const bool replaces = form.empty() || own.jinja.empty();
  if (jinja.empty()) return {};
  const auto end =
      Tokenizer(tokenizer_of(*session.files)).id(ChatTemplate::from_jinja(trained).end_of_turn());
  return {std::move(jinja), trained.tool_use, end, replaces};
}

/// The base's template stays, and the form of the data lies beside it.
void tell_of_two_templates(const Session& session, const TrainedChat& chat) {
  if (chat.jinja.empty() || chat.replaces) return;
  fmt::print(stderr,
             "attune: {} has its own chat template, but the data use the template '{}': the "
             "exported folder contains the latter as {}\n",
             session.config.model.path, session.data->chat().form, trained_chat_template);
}

/// Whether strategies have put something beside the model's own weights, or hold these otherwise.
bool is_changed(Model& model) {
  const auto is_added = [](const auto& module) {
    return nn::is_delta(*module.value()) || module.key() == nn::virtual_tokens_name;
  };
  const auto modules = model.module().named_modules("", false);
  if (std::ranges::any_of(modules, is_added)) return true;
  return std::ranges::any_of(nn::linears(model.module()),
                             [](const auto& linear) { return linear.second->packed() != nullptr; });
}

/// Every change becomes part of the model's own weights.
void fold(const Session& session) {
  for (const auto& [name, linear] : nn::linears(session.model->module()))
    if (linear->packed() && linear->deltas().empty())
      fail(
          "'{}' is quantized, so a whole model cannot be exported: remove strategy 'quantize', or "
          "use a strategy that exports an adapter",
          name);
  session.strategies->merge(*session.model);
}

/// Tensor by tensor, of what the ranks hold.
void publish_model(Session& session, const fs::path& folder, std::uint64_t largest_file) {
  const auto& world = session.mesh.world;
  std::vector<parallel::Shard> mine;
  if (world.root())  // which alone has folded its model; the others hold the same, without
    for (const auto& [name, tensor] : nn::stored_tensors(session.model->module()))
      mine.emplace_back(name, tensor);
  parallel::Gathering gathering(std::move(mine), world);
  std::vector<TensorToWrite> tensors;
  for (std::size_t i = 0; i < gathering.tensors().size(); ++i) {
    const auto& [name, shape, dtype] = gathering.tensors()[i];
    tensors.push_back({name, shape, dtype, [&gathering, i] { return gathering.read(i); }});
  }
  gathering.run([&] {
    export_model_folder(folder, *session.files, session.config.model.path, exported_config(session),
                        tensors, trained_chat(session), largest_file);
  });
}

/// A snapshot in Hugging Face's download cache, models--OWNER--NAME/snapshots/REVISION, has a name
/// that holds on every machine.
struct Base {
  std::string name;
  nlohmann::json revision;
};
Base base_of(const fs::path& model) {
  const auto path = (fs::absolute(model) / "").lexically_normal().parent_path();
  const auto owner = path.parent_path().parent_path().filename().string();
  constexpr std::string_view prefix = "models--";
  if (path.parent_path().filename() != "snapshots" || !owner.starts_with(prefix))
    return {path.string(), nullptr};
  auto name = owner.substr(prefix.size());
  if (const auto at = name.find("--"); at != std::string::npos) name.replace(at, 2, "/");
  return {name, path.filename().string()};
}

/// Which base an adapter belongs to, so that PEFT finds it by itself. Models without tokens have no
/// task in PEFT, which then wants their class.
void name_base(Adapter& adapter, const Session& session) {
  auto config = nlohmann::ordered_json::parse(adapter.config);
  const auto base = base_of(session.config.model.path);
  config["base_model_name_or_path"] = base.name;
  config["revision"] = base.revision;
  if (config["task_type"].is_null()) {
    const auto& family = session.model->spec().family;
    config["auto_mapping"] = {
        {"base_model_class", session.model->config()["architectures"][0]},
        {"parent_library", fmt::format("transformers.models.{0}.modeling_{0}", family)}};
  }
  adapter.config = config.dump(2) + "\n";
}

void warn_of_pooling(const Session& session) {
  const auto config = session.model->config();
  if (!config.contains("classifier_pooling") || config["classifier_pooling"] != "mean") return;
  fmt::print(stderr,
             "warning: this classifier pools the mean of the tokens, but transformers' class uses "
             "the first token, so its results differ; train with model.pooling = \"cls\" for use "
             "in transformers\n");
}

/// With its base's name, and its head's classes in the base's order: PEFT takes the names from
/// there. Absent: the result is a whole model.
std::optional<Adapter> adapter_of(const Session& session) {
  auto adapter = session.strategies->export_adapter(*session.model);
  if (!adapter) return adapter;
  name_base(*adapter, session);
  order_head(*adapter, *session.model,
             inverse(label_order(session.files->config, session.data->labels())));
  return adapter;
}

}  // namespace

void publish(Session& session, const fs::path& folder, bool merge, std::uint64_t largest_file) {
  const auto& world = session.mesh.world;
  bool is_adapter = false;
  on_root(world, [&] {
    warn_of_pooling(session);
    const auto chat = trained_chat(session);
    tell_of_two_templates(session, chat);
    const auto adapter = merge ? std::nullopt : adapter_of(session);
    is_adapter = adapter.has_value();
    if (!is_adapter) return fold(session);
    ExtraFiles extra;
    if (!chat.jinja.empty()) extra[chat_file(chat)] = chat.jinja;
    write_adapter(*adapter, session.base_sha256, folder, extra);
  });
  if (world.max(is_adapter) == 0) publish_model(session, folder, largest_file);
}

void check_publishable(const Session& session) {
  trained_chat(session);
  exported_config(session);
  bool is_adapter = false;
  if (!as_far_as_planned(session, [&] { is_adapter = adapter_of(session).has_value(); }) ||
      is_adapter)
    return;
  if (!is_changed(*session.model)) return;
  const auto copy = planned_copy(session);  // for folding changes the model
  if (copy.needs_values) return;
  try {
    as_far_as_planned(copy, [&] { fold(copy); });
  } catch (const Error& error) {
    fail(
        "these strategies produce a whole model, which could not be exported after the training "
        "({}): train only one strategy, which exports an adapter, or remove those that cannot be "
        "merged",
        error.what());
  }
}

std::string result_name(Session& session) {
  return session.strategies->export_adapter(*session.model) ? run_directory::names::adapter
                                                            : run_directory::names::model;
}

}  // namespace attune::train
