// Collectives over host tensors of any length, by MPI. MPI counts are int, so longer messages are
// sent in pieces.
#pragma once
#include "parallel/collectives.hpp"

namespace attune::parallel {

/// The calling thread waits in each call.
class MpiCollectives final : public Collectives {
 public:
  /// largest: maximum bytes per MPI call.
  MpiCollectives(Comm comm, std::size_t largest)
      : Collectives(std::move(comm)), largest_(static_cast<std::int64_t>(largest)) {}

  void all_reduce(const at::Tensor& tensor, Reduction op) const override;
  void reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                      const std::vector<std::int64_t>& sizes, Reduction op) const override;
  void all_gather(const at::Tensor& output, const at::Tensor& input,
                  const std::vector<std::int64_t>& sizes) const override;
  void all_to_all(const std::vector<at::Tensor>& outputs,
                  const std::vector<at::Tensor>& inputs) const override;
  void broadcast(const at::Tensor& tensor, int from) const override;

 private:
  std::int64_t largest_;
};

}  // namespace attune::parallel
