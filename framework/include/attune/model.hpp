// Model = embed + blocks + head, so that the framework can freeze, checkpoint activations, keep
// what frozen blocks give, shard, or give each depth its own learning rate without the model
// knowing. A model is weights and arithmetic: what differs from pass to pass is in the
// ForwardContext.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>
#include <attune/forward.hpp>
#include <attune/weights.hpp>
#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace torch::nn {
class Module;
}

ATTUNE_API_BEGIN
namespace attune {

using NamedTensor = std::pair<std::string, at::Tensor>;
namespace nn {
class Linear;
}

/// What the projection's rows are for: the next token, a sample's class or value, a token's class.
/// An embedding's features are what is asked for, one row of length 1 a sample; its projection
/// changes nothing.
enum class Task { next_token, classification, token_classification, embedding };

struct ModelSpec {
  std::string family;  // as in Hugging Face's model_type: "llama", "bert"
  Task task = Task::next_token;
  std::int64_t width = 0;       // of the hidden state
  std::int64_t depth = 0;       // blocks
  std::int64_t vocabulary = 0;  // rows of the token embedding
  std::int64_t context = 0;     // longest sample in tokens
  std::int64_t outputs = 0;     // rows of the projection: vocabulary, or number of labels
  // of attention, each head_width wide; 0: the model takes no virtual tokens
  std::int64_t key_heads = 0;
  std::int64_t head_width = 0;
  // embed() adds a learned position to every token: embeddings made elsewhere lack it
  bool embeds_positions = false;
};

/// The linear layers that play a part in every block, each as a pattern for nn::name_matches().
/// Empty: the model has none, or none that is a linear layer.
struct LayerRoles {
  std::vector<std::string> keys_values;  // of attention; one pattern where a layer gives both
  // the last linear layers of a block's two halves
  std::string attention_end;
  std::string mlp_end;
};

/// What a model plugin is built from.
struct ModelContext {
  // Hugging Face's config.json; made from the metadata when the file is GGUF
  const nlohmann::json& config;
  WeightSource& weights;            // Hugging Face's names
  std::vector<std::string> labels;  // of the data set; empty when it has none
};

/// Keys and values of a batch's samples, block by block, while generating.
class KeyValueCache {
 public:
  explicit KeyValueCache(std::int64_t blocks, std::int64_t samples = 1);
  /// keys, values: [n, heads, d] of the sample's new tokens; returns all so far, [m + n, heads, d].
  std::pair<at::Tensor, at::Tensor> append(std::int64_t block, std::int64_t sample,
                                           const at::Tensor& keys, const at::Tensor& values);
  /// Tokens of the sample seen so far, as this block has them.
  std::int64_t length(std::int64_t sample = 0, std::int64_t block = 0) const;
  /// The batch goes on with these of its samples.
  void keep(const std::vector<std::int64_t>& samples);

 private:
  std::vector<std::vector<std::pair<at::Tensor, at::Tensor>>> entries_;  // by sample, then block
};

/// Trained tokens before every sample, which stand for no word: given as embeddings (prompt tuning)
/// or as keys and values (prefix tuning).
class VirtualTokens {
 public:
  virtual ~VirtualTokens() = default;
  virtual std::int64_t length() const = 0;
  /// [length, width]; undefined when there are none.
  virtual at::Tensor embeddings();
  /// Each [length, key heads, head width]; undefined when there are none.
  virtual std::pair<at::Tensor, at::Tensor> keys_values(std::int64_t block);
};

class Model {
 public:
  explicit Model(ModelSpec spec) : spec_(std::move(spec)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// -> [T, width]
  virtual at::Tensor embed(ForwardContext& context) = 0;
  /// [T, width] -> [T, width]
  virtual at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) = 0;
  /// Last norm, pooling: [T, width] -> [N, width]
  virtual at::Tensor finish(const at::Tensor& h, ForwardContext& context) = 0;
  /// [N, width] -> [N, outputs]
  virtual nn::Linear& projection() = 0;
  /// Modules that belong to a classifier's head, the projection's among them: an adapter trains and
  /// saves them in full, for they are new when the labels are. Default: none.
  virtual std::vector<std::string> head_modules() const { return {}; }
  /// For strategies that are put at layers by their role. Default: none.
  virtual LayerRoles layer_roles() const { return {}; }
  // parameters, under Hugging Face's names
  virtual torch::nn::Module& module() = 0;
  /// The config.json that goes beside exported weights.
  virtual nlohmann::json config() const = 0;

  /// embed, every block, finish: the projection's input [N, width]. Losses apply the projection in
  /// chunks. A batch that brings `hidden` starts from there.
  at::Tensor features(ForwardContext context);
  /// The same, broken off: the hidden state after so many parts, where a part is a block, and part
  /// depth + 1 is finish.
  at::Tensor hidden_after(std::int64_t parts, ForwardContext context);
  /// How many parts come before everything that requires a gradient; 0 when not even the first
  /// block does.
  std::int64_t frozen_parts(ForwardContext context);
  /// features and projection in full, [N, outputs]: for tests and generation, never for a loss.
  at::Tensor logits(ForwardContext context);
  const ModelSpec& spec() const { return spec_; }

  /// Added to the model, as deltas are to its layers: whether they act is the context's to say.
  /// Come before every sample of a decoder's or encoder's batch. Error when there are some already.
  void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens);
  /// Changes the embeddings [T, width] of a batch in training.
  using EmbeddingChange = std::function<at::Tensor(const at::Tensor& h, ForwardContext& context)>;
  void change_embeddings(EmbeddingChange change) {
    embedding_changes_.push_back(std::move(change));
  }

  /// What the names of block i's parameters begin with, with the dot: "model.layers.3."
  virtual std::string block_name(std::int64_t index) const = 0;

 private:
  at::Tensor embedded(const ForwardContext& context);
  at::Tensor blocks(at::Tensor h, std::int64_t from, std::int64_t to,
                    const ForwardContext& context);
  at::Tensor finished(const at::Tensor& h, const ForwardContext& context);
  at::Tensor features_after_tokens(ForwardContext context);

  ModelSpec spec_;
  std::shared_ptr<VirtualTokens> virtual_tokens_;
  std::vector<EmbeddingChange> embedding_changes_;
};

}  // namespace attune
ATTUNE_API_END
