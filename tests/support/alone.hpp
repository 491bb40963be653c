// A run's surroundings without a run.
#pragma once
#include <attune/error.hpp>
#include <attune/strategy.hpp>

namespace attune::tiny {

struct Alone final : Surroundings {
  Comm comm() const override { return {}; }
  Tokenizer tokenizer() override { fail("no tokenizer"); }
  std::shared_ptr<Model> open_model(const std::string&) override { return ++opened, teacher; }
  std::string model_sha256(const std::string&) override { return "teacher"; }
  std::vector<double> class_weights() override { return weights; }
  void for_each_batch(const std::string&, std::int64_t, const std::function<void(const Batch&)>& work) override {
    for (const auto& batch : batches) work(batch);
  }
  void for_each_own_batch(const std::function<void(const Batch&)>& work) override { for_each_batch("", 0, work); }
  std::vector<NamedTensor> kept(const std::string& path, const std::map<std::string, std::string>&, const std::function<std::vector<NamedTensor>()>& make) override {
    if (!files.contains(path)) files[path] = make();
    return files[path];
  }
  bool trains() const override { return true; }
  std::shared_ptr<Model> teacher;
  int opened = 0;
  std::map<std::string, std::vector<NamedTensor>> files;
  std::vector<double> weights;
  std::vector<Batch> batches;
};

}  // namespace attune::tiny
