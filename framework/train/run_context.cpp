#include "train/run_context.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <numeric>
#include <set>

#include "data/sampler.hpp"
#include "evaluate/evaluate.hpp"
#include "parallel/mpi.hpp"
#include "train/memory.hpp"
#include "train/passes.hpp"
#include "train/schedule.hpp"
#include "weights/describe.hpp"
#include "weights/licence.hpp"
#include "weights/model_files.hpp"
#include "weights/safetensors.hpp"

namespace attune::train {
namespace {

/// What the run's steps take of the training split, and what it measures of the validation split.
std::vector<Rows> rows_of_run(const Session& session) {
  const auto& options = session.config.train;
  const auto& train = session.data->split("train");
  const auto steps = steps_of(options, train.size());
  std::set<std::int64_t> taken;
  Sampler sampler(train.size(), options.global_batch, session.config.run.seed,
                  session.mesh.data.size(), session.config.dataset.shuffle_block);
  for (std::int64_t step = 0; step < steps && std::ssize(taken) < train.size(); ++step)
    for (const auto row : sampler.step_rows(step)) taken.insert(row);
  if (options.micro_batch == 0) {  // which is found by trying the longest
    const auto longest = longest_first(session);
    taken.insert(longest.begin(),
                 longest.begin() + std::min(options.global_batch, std::ssize(longest)));
  }
  return {{"train", {taken.begin(), taken.end()}},
          {"validation", first_rows(samples_to_evaluate(session.data->split("validation"),
                                                        session.config.evaluate.samples))}};
}

}  // namespace

Tokenizer SessionModels::tokenizer() {
  on_root(s_.mesh.world, [&] { tokenizer_of(*s_.files); });
  return Tokenizer(nlohmann::json::parse(s_.mesh.world.broadcast(s_.files->tokenizer.dump())));
}

std::shared_ptr<Model> SessionModels::open(const std::string& path) {
  const auto files = open_model_files(path, s_.mesh.world);
  on_root(s_.mesh.world, [&] {
    check_architecture(*files, *s_.config.registry);
    check_licence(*files, s_.config.model.allowed_licences);
    const auto& theirs = files->tokenizer;
    const auto& ours = s_.files->tokenizer;
    if (!theirs.is_null() && !ours.is_null() && tokenizer_sha256(theirs) != tokenizer_sha256(ours))
      fail("{}: has a different tokenizer than {}: use a model with the same vocabulary", path,
           s_.config.model.path);
  });
  return build_model(s_, plugin_of(*files), *files);
}

/// One of the run's own architecture has the run's options, another its defaults.
config::Chosen SessionModels::plugin_of(const ModelFiles& files) const {
  const auto type = files.config.value("model_type", "");
  const auto ours = s_.files->config.value("model_type", "");
  if (type == ours) return s_.config.model_plugin;
  const auto& entry = s_.config.registry->find(Kind::model, type);
  return {&entry, entry.defaults()};
}

std::string SessionModels::sha256(const std::string& path) {
  if (s_.is_planned) return "";  // no weights are read
  std::string sha256;
  on_root(s_.mesh.world, [&] { sha256 = weights_sha256(ModelFiles::open(path)); });
  return s_.mesh.world.broadcast(sha256);
}

void SessionData::for_each_batch(const std::string& path, std::int64_t samples, const Work& work) {
  const auto data =
      path.empty() ? s_.data : std::make_shared<DataFile>(DataFile::open(path, s_.mesh.world));
  if (data->kind() != s_.data->kind())
    fail(
        "{}: contains samples of kind '{}', but this run trains on '{}': prepare the data with "
        "that kind",
        path, data->kind(), s_.data->kind());
  const auto& split = data->split("train");
  // of the run's own data, what its steps will see
  if (is_rehearsal_ && path.empty()) return batches_of(split, own_.front().rows, work);
  if (is_rehearsal_) {
    auto rows = longest_first(split);
    rows.resize(static_cast<std::size_t>(
        std::min(samples_to_evaluate(split, samples), s_.config.evaluate.micro_batch)));
    return batches_of(split, rows, work);
  }
  batches_of(split, first_rows(samples_to_evaluate(split, samples)), work);
}

void SessionData::for_each_own_batch(const Work& work) {
  for (const auto& [split, rows] : own_.empty() ? rows_of_run(s_) : own_)
    batches_of(s_.data->split(split), rows, work);
}

void SessionData::batches_of(const Split& split, std::span<const std::int64_t> rows,
                             const Work& work) const {
  const auto size = static_cast<std::size_t>(s_.config.evaluate.micro_batch);
  for (std::size_t first = 0; first < rows.size(); first += size) {
    work(preparing_pass(s_, load_batch(split, *s_.dataset,
                                       rows.subspan(first, std::min(size, rows.size() - first)))));
  }
}

TensorFiles::Tensors SessionFiles::read_or_make(const std::string& path,
                                                const std::map<std::string, std::string>& made_from,
                                                const std::function<Tensors()>& make) {
  auto origin = made_from;
  origin["training data (sha256)"] = s_.data->split("train").sha256();
  const bool is_there = s_.mesh.world.max(static_cast<std::int64_t>(
                            s_.mesh.world.root() && std::filesystem::exists(path))) != 0;
  if (!is_there) {
    auto made = make();
    if (is_rehearsal_) return made;
    on_root(s_.mesh.world, [&] { write_safetensors(path, made, origin); });
  }
  Tensors tensors;
  s_.mesh.world.agree([&] {
    const auto written = safetensors_metadata(path);
    for (const auto& [what, value] : origin)
      if (!value.empty() && (!written.contains(what) || written.at(what) != value))
        fail(
            "{}: does not match this run's {} ({}, but here {}): restore that, or set another file "
            "name",
            path, what, written.contains(what) ? written.at(what) : "none", value);
    const auto source = open_safetensors(path);
    for (const auto& info : source->tensors())
      tensors.emplace_back(info.name, source->read(info.name));
  });
  return tensors;
}

SessionContext::SessionContext(Session& session, std::vector<Rows> own, bool trains,
                               bool is_rehearsal)
    : models_(session),
      data_(session, std::move(own), is_rehearsal),
      files_(session, is_rehearsal),
      run_{.comm = session.mesh.data,
           .seed = session.config.run.seed,
           .steps = steps_of(session.config.train, session.data->split("train").size()),
           .device = session.device,
           .directory = session.config.directory(),
           .trained = {},
           .trains = trains,
           .models = models_,
           .data = data_,
           .files = files_} {}

std::vector<std::int64_t> first_rows(std::int64_t count) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

}  // namespace attune::train
