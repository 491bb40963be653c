// One pass of a batch through a model, as every layer sees it: which batch, what for, which changes
// act on which of its samples, and where its random numbers come from. Decision record:
// docs/design/0023-forward-context.md.
#pragma once
#include <attune/api.hpp>
#include <attune/batch.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

class KeyValueCache;
class VirtualTokens;
namespace nn {
class RotaryEmbedding;
struct Rotation;
}  // namespace nn

enum class Phase { training, evaluation, generation };

/// What random numbers depend on beside the sample, the layer and the place in it.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
};

/// Samples whose changes are those of one owner: a run of several that share a base.
struct OwnedSamples {
  std::int64_t owner;  // Delta::owner
  std::int64_t first;
  std::int64_t count;
};

/// Passed by reference down one pass, and copied for another: a copy is cheap.
class ForwardContext {
 public:
  /// Of no batch: for a layer by itself. Evaluation.
  ForwardContext();
  /// Implicit: a batch is a context of evaluation.
  ForwardContext(Batch batch, Phase phase = Phase::evaluation, RandomKey key = {});

  const Batch& batch() const { return *batch_; }
  Phase phase() const { return phase_; }
  bool is_training() const { return phase_ == Phase::training; }
  /// Seed of the run and step, from 0; zeros outside of training.
  const RandomKey& key() const { return key_; }
  /// -1: before the first block; the model's depth: after the last.
  std::int64_t block() const { return block_; }

  // a block keeps only its input for the backward pass, and is computed again there (Chen et al.
  // 2016, arXiv:1604.06174)
  bool recompute = false;
  // the loss is to give Loss::outputs also for classes, which a metric compares
  bool wants_outputs = false;
  // while generating: attend to, and append to, what was seen before
  KeyValueCache* cache = nullptr;
  // set by Model::features: keys and values that every sample attends to
  VirtualTokens* virtual_tokens = nullptr;

  /// The same pass through the base alone: no deltas, no virtual tokens, no changes of embeddings.
  ForwardContext base_alone() const;
  /// Each owner's changes act on its own samples and on no others; `owners` in the order of the
  /// samples.
  ForwardContext shared_by(std::vector<OwnedSamples> owners) const;
  /// The same pass with another batch, made of this one's samples: virtual tokens before them, or
  /// patches in place of tokens.
  ForwardContext with_batch(Batch batch) const;
  /// As seen in a block. Random numbers there depend on the block and not on what came before it.
  ForwardContext in_block(std::int64_t block) const;
  /// As seen by the projection, which comes after every block.
  ForwardContext in_projection() const;
  /// For some rows alone of the `all` that the batch has at this place of the model: rows int64
  /// [n].
  ForwardContext of_rows(at::Tensor rows, std::int64_t all) const;

  bool is_shared() const { return !owners_.empty(); }
  bool changes_act() const { return changes_act_; }
  bool acts(std::int64_t owner) const { return changes_act_ && (!owner_ || *owner_ == owner); }
  /// forward(x, context) for the rows of each owner by themselves, put together; at once where the
  /// samples are not shared.
  using Forward = std::function<at::Tensor(const at::Tensor& x, ForwardContext& context)>;
  at::Tensor by_owner(const at::Tensor& x, const Forward& forward);

  /// Of the batch's positions. Computed once a pass.
  const nn::Rotation& rotation(nn::RotaryEmbedding& rotary);

  /// Uniform in [0, 1), float32, of the shape of x, whose rows are the batch's tokens, samples, or
  /// rows of samples in turn. The numbers of a sample's row depend on seed, step, the sample's row
  /// in the data, the block, and how often the block has drawn: not on the rest of the batch, the
  /// rank, the device, nor on what was drawn before. Salmon et al. 2011
  /// (doi:10.1145/2063384.2063405), Philox 4x32 with 10 rounds.
  at::Tensor random(const at::Tensor& x);
  /// While training: zero with probability p, else x / (1 - p). Keeps nothing for the backward
  /// pass.
  at::Tensor dropout(const at::Tensor& x, double p);

 private:
  struct Part {
    std::optional<std::int64_t> owner;  // absent: of nobody, the base alone
    // rows
    std::int64_t first;
    std::int64_t count;
  };
  struct Place {
    std::int64_t sample;
    std::int64_t position;
  };
  struct Tables;
  struct Drawn;
  Drawn draw(std::int64_t rows);
  std::vector<Place> places(std::int64_t rows) const;
  std::vector<Part> parts(std::int64_t rows) const;
  ForwardContext of_part(const Part& part, std::int64_t rows) const;
  std::vector<std::uint64_t> keys(std::int64_t samples) const;

  std::shared_ptr<const Batch> batch_;
  Phase phase_ = Phase::evaluation;
  RandomKey key_;
  bool changes_act_ = true;
  std::optional<std::int64_t> owner_;  // whose changes act; absent: everybody's
  std::vector<OwnedSamples> owners_;   // empty: the samples are not shared
  at::Tensor rows_;                    // int64; undefined: all
  std::int64_t all_rows_ = 0;          // that rows_ are of
  std::int64_t block_ = -1;
  std::int64_t draws_ = 0;
  std::shared_ptr<Tables> tables_;
};

}  // namespace attune
ATTUNE_API_END
