// Model = embed + blocks + head. This division lets the framework freeze and shard models,
// checkpoint activations, cache the output of frozen blocks, and set learning rates by depth,
// without support from the model. A model holds weights and arithmetic; all per-pass state is in
// the ForwardContext.
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

/// Meaning of the projection's output rows: next token, class or value of a sample, or class of a
/// token. For an embedding model the features are the result, one row of length 1 per sample; its
/// projection is the identity.
enum class Task { next_token, classification, token_classification, embedding };

struct ModelSpec {
  std::string family;  // Hugging Face's model_type: "llama", "bert"
  Task task = Task::next_token;
  std::int64_t width = 0;       // hidden size
  std::int64_t depth = 0;       // number of blocks
  std::int64_t vocabulary = 0;  // rows of the token embedding
  std::int64_t context = 0;     // maximum sample length in tokens
  std::int64_t outputs = 0;     // rows of the projection: vocabulary or number of labels
  // key heads of attention, each head_width wide; 0: the model supports no virtual tokens
  std::int64_t key_heads = 0;
  std::int64_t head_width = 0;
  // embed() adds learned positions, which embeddings from elsewhere lack
  bool embeds_positions = false;
};

/// The linear layers with a known role in every block, as patterns for nn::name_matches(). A role
/// is empty if the model has no such linear layer.
struct LayerRoles {
  std::vector<std::string> keys_values;  // of attention; one pattern if one layer computes both
  // last linear layer of the attention half and of the MLP half of a block
  std::string attention_end;
  std::string mlp_end;
};

/// Arguments for the construction of a model plugin.
struct ModelContext {
  // Hugging Face's config.json; derived from the metadata for GGUF files
  const nlohmann::json& config;
  WeightSource& weights;            // under Hugging Face's names
  std::vector<std::string> labels;  // of the data set; empty if it has none
};

/// Keys and values of a batch's samples, per block, for generation.
class KeyValueCache {
 public:
  /// blocks: number of the model's blocks. samples: number of samples in the batch.
  explicit KeyValueCache(std::int64_t blocks, std::int64_t samples = 1);
  /// Appends keys and values [n, heads, d] of the sample's new tokens. Returns all so far, [m + n,
  /// heads, d].
  std::pair<at::Tensor, at::Tensor> append(std::int64_t block, std::int64_t sample,
                                           const at::Tensor& keys, const at::Tensor& values);
  /// Number of the sample's tokens in the cache of this block.
  std::int64_t length(std::int64_t sample = 0, std::int64_t block = 0) const;
  /// Keeps only these samples of the batch.
  void keep(const std::vector<std::int64_t>& samples);

 private:
  std::vector<std::vector<std::pair<at::Tensor, at::Tensor>>> entries_;  // by sample, then block
};

/// Trainable tokens before every sample: embeddings (prompt tuning) or keys and values (prefix
/// tuning).
class VirtualTokens {
 public:
  virtual ~VirtualTokens() = default;
  virtual std::int64_t length() const = 0;
  /// Embeddings [length, width]. Default: undefined, which means that there are none.
  virtual at::Tensor embeddings();
  /// Keys and values of a block, each [length, key heads, head width]. Default: undefined, which
  /// means that there are none.
  virtual std::pair<at::Tensor, at::Tensor> keys_values(std::int64_t block);
};

class Model {
 public:
  explicit Model(ModelSpec spec) : spec_(std::move(spec)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// Token embeddings of the batch, [T, width].
  virtual at::Tensor embed(ForwardContext& context) = 0;
  /// Output of block `index`: [T, width] -> [T, width]
  virtual at::Tensor block(std::int64_t index, const at::Tensor& h, ForwardContext& context) = 0;
  /// Last norm and pooling: [T, width] -> [N, width]
  virtual at::Tensor finish(const at::Tensor& h, ForwardContext& context) = 0;
  /// The output layer, [N, width] -> [N, outputs].
  virtual nn::Linear& projection() = 0;
  /// Modules of a classifier's head, including the projection. Adapters train and save them in
  /// full, because new labels require a new head. Default: none.
  virtual std::vector<std::string> head_modules() const { return {}; }
  /// Layer patterns for strategies that select layers by role. Default: none.
  virtual LayerRoles layer_roles() const { return {}; }
  /// The module with all parameters, under Hugging Face's names.
  virtual torch::nn::Module& module() = 0;
  /// The config.json written with exported weights.
  virtual nlohmann::json config() const = 0;

  /// Runs embed, all blocks and finish. Returns the projection's input [N, width]; losses apply the
  /// projection in chunks. Starts from batch.hidden if it is defined and belongs to this model.
  at::Tensor features(ForwardContext context);
  /// Runs embed and the first `parts` parts, and returns the hidden state. Parts 1 to depth are the
  /// blocks; part depth + 1 is finish.
  at::Tensor hidden_after(std::int64_t parts, ForwardContext context);
  /// Number of leading parts whose output requires no gradient; 0 if not even the first block
  /// qualifies.
  std::int64_t frozen_parts(ForwardContext context);
  /// features and projection in full, [N, outputs]. For tests and generation, not for losses.
  at::Tensor logits(ForwardContext context);
  const ModelSpec& spec() const { return spec_; }

  /// Adds virtual tokens before every sample of a decoder's or encoder's batch. As for deltas, the
  /// context decides whether they act. Error if the model already has virtual tokens.
  void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens);
  /// Modifies the embeddings [T, width] of a training batch.
  using EmbeddingChange = std::function<at::Tensor(const at::Tensor& h, ForwardContext& context)>;
  void change_embeddings(EmbeddingChange change) {
    embedding_changes_.push_back(std::move(change));
  }

  /// Prefix of the names of block i's parameters, with the trailing dot: "model.layers.3."
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
