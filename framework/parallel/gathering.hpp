// Gathers sharded tensors on rank 0, one whole tensor at a time, so that the writer of model files
// never holds the whole model.
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

  /// mine: this rank's shards, on any device, unchanged until run() ends. Tensors are ordered by
  /// first occurrence, over the ranks in order. Error if elements of a tensor are missing, before
  /// anything is sent. Collective.
  Gathering(std::vector<Shard> mine, Comm group);

  /// The tensors of all ranks; the same on every rank.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  /// Runs `work` on rank 0. The other ranks send the tensors that it reads until it returns.
  /// Exceptions are rethrown on all ranks. Collective.
  void run(const std::function<void()>& work);
  /// Returns tensors()[index] on the CPU, or unchanged if rank 0 holds it whole. Only on rank 0, in
  /// run().
  at::Tensor read(std::size_t index);

 private:
  struct Piece {
    int rank;
    std::size_t shard;  // index into that rank's shards
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
  std::vector<std::vector<Piece>> pieces_;  // by tensor; cover each element once
};

}  // namespace attune::parallel
