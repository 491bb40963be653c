// A run's context, and its training passes, without a run.
#pragma once
#include <attune/error.hpp>
#include <attune/strategy.hpp>

namespace attune::tiny {

inline ForwardContext training(const Batch& batch, RandomKey key = {}) {
  return {batch, Phase::training, key};
}

struct Alone final : RunModels, RunData, TensorFiles {
  Tokenizer tokenizer() override { fail("no tokenizer"); }
  std::shared_ptr<Model> open(const std::string&) override { return ++opened, teacher; }
  std::string sha256(const std::string&) override { return "teacher"; }
  std::vector<double> class_weights() override { return weights; }
  void for_each_batch(const std::string&, std::int64_t, const Work& work) override {
    for (const auto& batch : batches) {
      ForwardContext context(batch);
      context.recompute = recompute;
      work(context);
    }
  }
  void for_each_own_batch(const Work& work) override { for_each_batch("", 0, work); }
  Tensors read_or_make(const std::string& path, const std::map<std::string, std::string>&,
                       const std::function<Tensors()>& make) override {
    if (!made.contains(path)) made[path] = make();
    return made[path];
  }

  RunContext context{.models = *this, .data = *this, .files = *this};
  std::shared_ptr<Model> teacher;
  int opened = 0;
  bool recompute = false;
  std::map<std::string, Tensors> made;
  std::vector<double> weights;
  std::vector<Batch> batches;
};

}  // namespace attune::tiny
