// What strategies may ask of the run before its first step.
#pragma once
#include "train/session.hpp"

namespace attune::train {

class RunSurroundings final : public Surroundings {
 public:
  explicit RunSurroundings(Session& session) : s_(session) {}
  Comm comm() const override { return s_.comm; }
  Tokenizer tokenizer() override;
  std::shared_ptr<Model> open_model(const std::string& path) override;
  std::vector<double> class_weights() override { return s_.data->class_weights(); }
  void for_each_batch(const std::string& path, std::int64_t samples, const std::function<void(const Batch&)>& work) override;

 private:
  Session& s_;
};

}  // namespace attune::train
