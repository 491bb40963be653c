#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <attune/batch.hpp>
#include <attune/error.hpp>

namespace attune {

Batch pack(const std::vector<at::Tensor>& tokens) {
  std::vector<at::Tensor> wide{at::empty({0}, at::kLong)};
  std::vector<at::Tensor> positions{at::empty({0}, at::kLong)};
  Batch batch;
  for (const auto& one : tokens) {
    ATTUNE_ASSERT(one.dim() == 1, "{} dimensions", one.dim());
    wide.push_back(one.to(at::kLong));
    positions.push_back(at::arange(one.size(0), at::kLong));
    batch.starts.push_back(batch.starts.back() + one.size(0));
  }
  batch.tokens = at::cat(wide);
  batch.positions = at::cat(positions);
  return batch;
}

}  // namespace attune
