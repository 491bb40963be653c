#include "parallel/gradient_sum.hpp"

#include <torch/torch.h>

namespace attune::parallel {

GradientSum::GradientSum(const NamedTensors& parameters, const Comm& data, ProcessGroup group,
                         bool reproducible, bool in_one_piece) {
  if (reproducible)
    tree_.emplace(parameters, data, std::move(group));
  else
    reducer_.emplace(parameters, data, std::move(group), in_one_piece);
}

void GradientSum::begin(std::int64_t micro_batches, std::int64_t first, std::int64_t last) {
  left_ = last - first;
  has_work_ = left_ > 0;
  if (tree_) tree_->begin(micro_batches, first, last);
}

void GradientSum::backward(const at::Tensor& loss) {
  if (--left_ == 0 && reducer_) reducer_->begin_last_backward();
  loss.backward();
  if (tree_) tree_->add();
}

void GradientSum::finish() {
  if (tree_) return tree_->finish();
  if (!has_work_) reducer_->begin_last_backward();
  reducer_->finish();
}

void GradientSum::abandon() {
  if (tree_) tree_->abandon();
}

}  // namespace attune::parallel
