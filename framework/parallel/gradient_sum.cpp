#include "parallel/gradient_sum.hpp"

#include <torch/torch.h>

namespace attune::parallel {

GradientSum::GradientSum(const NamedTensors& parameters, const ShardPlan& plan,
                         const Sharing& sharing, bool reproducible, bool in_one_piece)
    : parameters_(parameters), plan_(plan) {
  if (reproducible)
    tree_.emplace(parameters, plan, sharing);
  else if (sharing.is_sharded())
    scattered_.emplace(parameters, plan, sharing, in_one_piece);
  else
    reducer_.emplace(parameters, sharing.data.comm, sharing.data.collectives, in_one_piece);
}

std::int64_t GradientSum::begin(std::int64_t micro_batches, std::int64_t first, std::int64_t last) {
  left_ = last - first;
  has_work_ = left_ > 0;
  if (tree_) tree_->begin(micro_batches, first, last);
  if (reducer_) reducer_->begin(left_);
  return scattered_ ? scattered_->begin(left_) : left_;
}

void GradientSum::backward(const at::Tensor& loss) {
  if (scattered_) return scattered_->backward(loss);
  if (--left_ == 0 && reducer_) reducer_->begin_last_backward();
  loss.backward();
  if (tree_) tree_->add();
}

void GradientSum::finish() {
  if (scattered_) return scattered_->finish();
  if (tree_) {
    of_tree_ = tree_->finish();
    if (plan_.ranks() > 1) return;
    for (std::size_t i = 0; i < of_tree_.size(); ++i)
      at::Tensor(parameters_[plan_.of_rank(0)[i].tensor].second).mutable_grad() =
          of_tree_[i].tensor;
    return;
  }
  if (!has_work_) reducer_->begin_last_backward();
  reducer_->finish();
}

void GradientSum::abandon() {
  if (tree_) tree_->abandon();
  if (scattered_) scattered_->abandon();
}

std::vector<Shard> GradientSum::take_shards() {
  if (scattered_) return scattered_->take_shards();
  if (tree_) return std::exchange(of_tree_, {});
  return gradient_shards(parameters_, plan_, 0);
}

}  // namespace attune::parallel
