// What a strategy may know and ask of its run: a few facts, and narrow parts that do something.
#pragma once
#include <attune/api.hpp>
#include <attune/comm.hpp>
#include <attune/model.hpp>
#include <attune/tokenizer.hpp>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

/// The run's model as text sees it, and models beside it. Collective.
class RunModels {
 public:
  virtual ~RunModels() = default;
  /// The run's model's own. Error when it has none.
  virtual Tokenizer tokenizer() = 0;
  /// Another model, of any architecture that there is a plugin for: a folder or a .gguf file;
  /// frozen. Error when it reads text with another tokenizer than the run's model.
  virtual std::shared_ptr<Model> open(const std::string& path) = 0;
  /// sha256 of the weights of such a model; empty in a run that is only planned.
  virtual std::string sha256(const std::string& path) = 0;
};

/// Samples, batch by batch, the same on every rank, in contexts of an evaluation. Collective.
class RunData {
 public:
  using Work = std::function<void(const ForwardContext&)>;
  virtual ~RunData() = default;
  /// By label, as prepared with balance.method = "weights"; empty otherwise.
  virtual std::vector<double> class_weights() = 0;
  /// The first `samples` (0: all) of the training split of a data file of the run's kind ("": the
  /// run's own).
  virtual void for_each_batch(const std::string& path, std::int64_t samples, const Work& work) = 0;
  /// The samples that the run's steps take, and those that it is measured on.
  virtual void for_each_own_batch(const Work& work) = 0;
};

/// Files of tensors that are dear to make and serve several runs. Collective.
class TensorFiles {
 public:
  using Tensors = std::vector<NamedTensor>;
  virtual ~TensorFiles() = default;
  /// Those of a safetensors file, over the mapped file. Where there is none, `make` computes them,
  /// the same on every rank, and they are written. The file holds `made_from` and the hash of the
  /// run's training split; Error when these are others.
  virtual Tensors read_or_make(const std::string& path,
                               const std::map<std::string, std::string>& made_from,
                               const std::function<Tensors()>& make) = 0;
};

struct RunContext {
  // the data-parallel group (Mesh::data): the ranks to divide samples over
  Comm comm;
  std::int64_t seed = 0;
  std::int64_t steps = 0;            // in all
  c10::Device device = c10::kCPU;    // of this rank
  std::filesystem::path directory;   // of the run; it need not be there yet
  std::vector<NamedTensor> trained;  // by the run, as its strategies chose
  // false: its steps are over and it is only measured; what serves training alone need not be made
  bool trains = true;
  RunModels& models;
  RunData& data;
  TensorFiles& files;
};

}  // namespace attune
ATTUNE_API_END
