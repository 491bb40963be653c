// A strategy's interface to its run: a few facts, and narrow services.
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

/// The tokenizer of the run's model, and access to further models. All calls are collective.
class RunModels {
 public:
  virtual ~RunModels() = default;
  /// The tokenizer of the run's model. Error if it has none.
  virtual Tokenizer tokenizer() = 0;
  /// Opens another model, frozen: a folder or a .gguf file of any architecture with a plugin. Error
  /// if its tokenizer differs from that of the run's model.
  virtual std::shared_ptr<Model> open(const std::string& path) = 0;
  /// SHA-256 of that model's weights; empty in a run that is only planned.
  virtual std::string sha256(const std::string& path) = 0;
};

/// Access to samples, in batches that are the same on every rank, with evaluation contexts. All
/// calls are collective.
class RunData {
 public:
  using Work = std::function<void(const ForwardContext&)>;
  virtual ~RunData() = default;
  /// Weights by label, if the data was prepared with balance.method = "weights"; otherwise empty.
  virtual std::vector<double> class_weights() = 0;
  /// Calls `work` with the first `samples` samples (0: all) of a data file's training split. The
  /// file must be of the run's dataset kind; "" selects the run's own file.
  virtual void for_each_batch(const std::string& path, std::int64_t samples, const Work& work) = 0;
  /// Calls `work` with every training and evaluation sample of the run.
  virtual void for_each_own_batch(const Work& work) = 0;
};

/// Cache files for tensors that are expensive to compute and useful to several runs. All calls are
/// collective.
class TensorFiles {
 public:
  using Tensors = std::vector<NamedTensor>;
  virtual ~TensorFiles() = default;
  /// Returns the tensors of a safetensors file, memory-mapped. If the file does not exist, `make`
  /// computes them, identically on every rank, and the file is written. The file records
  /// `made_from` and the hash of the run's training split. Error if they differ.
  virtual Tensors read_or_make(const std::string& path,
                               const std::map<std::string, std::string>& made_from,
                               const std::function<Tensors()>& make) = 0;
};

struct RunContext {
  // data-parallel group (Mesh::data), over which samples are divided
  Comm comm;
  std::int64_t seed = 0;
  std::int64_t steps = 0;            // total steps
  c10::Device device = c10::kCPU;    // of this rank
  std::filesystem::path directory;   // run directory; may not exist yet
  std::vector<NamedTensor> trained;  // parameters selected by the run's strategies
  // false: the run is only evaluated, so state for training need not be built
  bool trains = true;
  RunModels& models;
  RunData& data;
  TensorFiles& files;
};

}  // namespace attune
ATTUNE_API_END
