// Model = embed + blocks + head, so that the framework can freeze, checkpoint activations, cache a frozen prefix, shard, or give each
// depth its own learning rate without the model knowing.
#pragma once
#include <attune/batch.hpp>
#include <attune/weights.hpp>
#include <nlohmann/json_fwd.hpp>

#include <string>
#include <utility>
#include <vector>

namespace torch::nn {
class Module;
}

namespace attune {
namespace nn {
class Linear;
}

enum class Task { next_token, classification };

struct ModelSpec {
  std::string family;           // as in Hugging Face's model_type: "llama", "bert"
  Task task = Task::next_token;
  std::int64_t width = 0;       // of the hidden state
  std::int64_t depth = 0;       // blocks
  std::int64_t vocabulary = 0;  // rows of the token embedding
  std::int64_t context = 0;     // longest sample in tokens
  std::int64_t outputs = 0;     // rows of the projection: vocabulary, or number of labels
};

/// What a model plugin is built from.
struct ModelContext {
  const nlohmann::json& config;       // Hugging Face's config.json; made from the metadata when the file is GGUF
  WeightSource& weights;              // Hugging Face's names
  std::vector<std::string> labels;    // of the data set; empty when it has none
};

/// Keys and values of one sample, block by block, while generating.
class KeyValueCache {
 public:
  explicit KeyValueCache(std::int64_t blocks) : entries_(blocks) {}
  /// keys, values: [n, heads, d] of the new tokens; returns all so far, [m + n, heads, d].
  std::pair<at::Tensor, at::Tensor> append(std::int64_t block, const at::Tensor& keys, const at::Tensor& values);
  std::int64_t length() const;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> entries_;
};

class Model {
 public:
  explicit Model(ModelSpec spec) : spec_(std::move(spec)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  virtual at::Tensor embed(const Batch& batch) = 0;                                            // -> [T, width]
  virtual at::Tensor block(std::int64_t index, const at::Tensor& h, const Batch& batch) = 0;   // [T, width] -> [T, width]
  virtual at::Tensor finish(const at::Tensor& h, const Batch& batch) = 0;                      // last norm, pooling: [T, width] -> [N, width]
  virtual nn::Linear& projection() = 0;                                                        // [N, width] -> [N, outputs]
  virtual torch::nn::Module& module() = 0;                                                     // parameters, under Hugging Face's names
  /// The config.json that goes beside exported weights.
  virtual nlohmann::json config() const = 0;

  /// embed, every block, finish: the projection's input [N, width]. Losses apply the projection in chunks.
  at::Tensor features(const Batch& batch);
  /// features and projection in full, [N, outputs]: for tests and generation, never for a loss.
  at::Tensor logits(const Batch& batch);
  const ModelSpec& spec() const { return spec_; }
  /// Prefix of the parameters of block i, with the dot: "model.layers.3."
  virtual std::string block_prefix(std::int64_t index) const = 0;

 private:
  ModelSpec spec_;
};

}  // namespace attune
