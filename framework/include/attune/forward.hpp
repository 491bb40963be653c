// The context of one forward pass: the batch, the phase, the deltas that act on each sample, and
// the source of random numbers. Every layer receives it. Decision record:
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

/// The part of the random-number key that is common to a batch. The sample, the block and the draw
/// complete the key.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
};

/// Consecutive samples of one owner, in a batch shared by several runs on one base model.
struct OwnedSamples {
  std::int64_t owner;  // Delta::owner
  std::int64_t first;
  std::int64_t count;
};

/// Passed by reference through one pass, and copied to derive another context. Copies are cheap.
class ForwardContext {
 public:
  /// A context without a batch, in phase evaluation. For calling a single layer.
  ForwardContext();
  /// Implicit, so that a batch can be passed as an evaluation context.
  ForwardContext(Batch batch, Phase phase = Phase::evaluation, RandomKey key = {});

  const Batch& batch() const { return *batch_; }
  Phase phase() const { return phase_; }
  bool is_training() const { return phase_ == Phase::training; }
  /// Seed of the run, and step, counted from 0. Both are zero outside training.
  const RandomKey& key() const { return key_; }
  /// Index of the current block; -1 before the first block, the model's depth after the last.
  std::int64_t block() const { return block_; }

  // activation checkpointing: each block stores only its input and is recomputed in the backward
  // pass (Chen et al. 2016, arXiv:1604.06174)
  bool recompute = false;
  // also compute Loss::outputs for class targets, because a metric needs them
  bool wants_outputs = false;
  // generation only: cache of earlier keys and values; attention reads it and appends to it
  KeyValueCache* cache = nullptr;
  // set by Model::features: virtual tokens whose keys and values every sample attends to
  VirtualTokens* virtual_tokens = nullptr;

  /// The same pass through the base model only: without deltas, virtual tokens and embedding
  /// changes.
  ForwardContext base_alone() const;
  /// Applies each owner's deltas to that owner's samples only. `owners` must follow the order of
  /// the samples in the batch.
  ForwardContext shared_by(std::vector<OwnedSamples> owners) const;
  /// The same pass with another batch derived from this one, for example with virtual tokens
  /// prepended or image patches in place of tokens.
  ForwardContext with_batch(Batch batch) const;
  /// The context inside a block. Random numbers there depend on the block, not on earlier draws.
  ForwardContext in_block(std::int64_t block) const;
  /// The context of the projection, which follows the last block.
  ForwardContext in_projection() const;
  /// The context for a subset of rows. rows: int64 [n]. all: number of rows of the batch at this
  /// point of the model.
  ForwardContext of_rows(at::Tensor rows, std::int64_t all) const;

  bool is_shared() const { return !owners_.empty(); }
  bool changes_act() const { return changes_act_; }
  bool acts(std::int64_t owner) const { return changes_act_ && (!owner_ || *owner_ == owner); }
  /// Calls forward(x, context) separately for the rows of each owner and concatenates the results.
  /// A batch without owners needs only one call.
  using Forward = std::function<at::Tensor(const at::Tensor& x, ForwardContext& context)>;
  at::Tensor by_owner(const at::Tensor& x, const Forward& forward);

  /// Cosines and sines for the batch's positions. Computed once per pass.
  const nn::Rotation& rotation(nn::RotaryEmbedding& rotary);

  /// Uniform random numbers in [0, 1), float32, with the shape of x. The rows of x are the batch's
  /// tokens, its samples, or rows grouped by sample. A row's numbers depend only on the seed, the
  /// step, the sample's row in the data, the block, and the number of earlier draws in that block.
  /// They do not depend on the rest of the batch, the rank or the device. Generator: Philox 4x32
  /// with 10 rounds (Salmon et al. 2011, doi:10.1145/2063384.2063405).
  at::Tensor random(const at::Tensor& x);
  /// Dropout: in training, zero with probability p, otherwise x / (1 - p). Outside training, x. The
  /// mask is not stored for the backward pass.
  at::Tensor dropout(const at::Tensor& x, double p);

 private:
  struct Part {
    std::optional<std::int64_t> owner;  // absent: no owner, base model only
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
  std::optional<std::int64_t> owner_;  // owner whose deltas act; absent: all owners
  std::vector<OwnedSamples> owners_;   // empty: the batch is not shared
  at::Tensor rows_;                    // int64; undefined: all
  std::int64_t all_rows_ = 0;          // number of rows that rows_ indexes
  std::int64_t block_ = -1;
  std::int64_t draws_ = 0;
  std::shared_ptr<Tables> tables_;
};

}  // namespace attune
ATTUNE_API_END
