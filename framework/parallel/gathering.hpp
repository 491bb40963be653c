// Whole tensors on rank 0, one at a time, of the shards that the ranks of a group hold: what writes
// a model's files never holds the model.
#pragma once
#include <functional>

#include "parallel/shard.hpp"

namespace attune::parallel {

class Gathering {
 public:
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    at::ScalarType dtype;
  };

  /// mine: this rank's shards, on any device; they stay as they are until the end. Their names come
  /// in the order of rank 0's, then in that of the others. Error, before anything is sent, when
  /// numbers of a tensor are missing. Collective.
  Gathering(std::vector<Shard> mine, Comm group);

  /// Of all ranks; the same on every one.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  /// Rank 0 does the work, which may read; the others hand over what it reads until it is done.
  /// What it throws, all throw. Collective.
  void run(const std::function<void()>& work);
  /// On rank 0, in run(): tensors()[index] on the CPU; one that rank 0 holds whole, as it is.
  at::Tensor read(std::size_t index);

 private:
  struct Piece {
    int rank;
    std::size_t shard;  // of that rank's
    std::int64_t offset;
    std::int64_t count;
    bool is_whole;
  };
  void note(int rank, const std::string& shards);
  void choose_pieces();
  void serve();

  std::vector<Shard> mine_;
  Comm group_;
  std::vector<Tensor> tensors_;
  std::vector<std::vector<Piece>> pieces_;  // of each tensor: every number once
};

}  // namespace attune::parallel
