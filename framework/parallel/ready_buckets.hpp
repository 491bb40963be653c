// Tells during a backward pass which parameters have their gradients.
#pragma once
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>
#include <vector>

#include "parallel/shard.hpp"

namespace attune::parallel {

/// While it lives, it watches the gradients of parameters. In each pass
///   ready.begin();
///   loss.backward();   // calls work(bucket) for each bucket whose gradients are complete
///   ready.end();       // and now for every other one
///
/// The buckets come in one order, last to first, whichever gradients a rank's pass computes: work
/// may be collective. It may take the gradients: make them undefined. Between end() and begin()
/// nothing is called.
class ReadyBuckets {
 public:
  using Work = std::function<void(std::size_t bucket)>;

  /// parameters: they require gradients.
  ReadyBuckets(const NamedTensors& parameters, const Buckets& buckets, Work work);
  ~ReadyBuckets();
  ReadyBuckets(const ReadyBuckets&) = delete;
  ReadyBuckets& operator=(const ReadyBuckets&) = delete;

  void begin();
  void end();
  /// The buckets that got a further piece of a gradient after they were ready, in the last pass:
  /// where parts of a pass are passes of their own, as with recomputed activations, a parameter of
  /// several parts has its gradient piece by piece.
  const std::vector<std::size_t>& late() const { return late_; }

 private:
  using Accumulator =
      decltype(torch::autograd::impl::grad_accumulator(std::declval<torch::autograd::Variable>()));
  struct Watched {
    at::Tensor parameter;
    std::size_t bucket = 0;
    Accumulator accumulator;
    std::uintptr_t hook = 0;
    bool has_arrived = false;
  };
  void watch(Watched& one);
  void arrive(Watched& one);
  void tell_ready();

  std::vector<Watched> watched_;
  std::vector<std::size_t> missing_;  // gradients, by bucket
  std::vector<std::size_t> late_;
  std::size_t left_ = 0;  // buckets that are not yet told of: the first ones
  bool is_active_ = false;
  Work work_;
};

}  // namespace attune::parallel
