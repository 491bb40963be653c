// What strategies may ask of the run before its first step.
#pragma once
#include <utility>

#include "train/session.hpp"

namespace attune::train {

/// Rows of a split.
struct Rows {
  std::string split;
  std::vector<std::int64_t> rows;
};

/// 0 .. count - 1
std::vector<std::int64_t> first_rows(std::int64_t count);

class RunSurroundings final : public Surroundings {
 public:
  /// Of a run that trains.
  explicit RunSurroundings(Session& session) : RunSurroundings(session, {}, true, false) {}
  /// Of one that only tries steps with these rows: every pass over data is one batch, and nothing is written.
  static RunSurroundings rehearsal(Session& session, Rows rows) { return {session, {std::move(rows)}, true, true}; }
  /// Of one that is only measured on these rows.
  static RunSurroundings measurement(Session& session, Rows rows) { return {session, {std::move(rows)}, false, false}; }

  Comm comm() const override { return s_.comm; }
  Tokenizer tokenizer() override;
  std::shared_ptr<Model> open_model(const std::string& path) override;
  std::string model_sha256(const std::string& path) override;
  std::vector<double> class_weights() override { return s_.data->class_weights(); }
  void for_each_batch(const std::string& path, std::int64_t samples, const std::function<void(const Batch&)>& work) override;
  void for_each_own_batch(const std::function<void(const Batch&)>& work) override;
  std::vector<NamedTensor> kept(const std::string& path, const std::map<std::string, std::string>& made_from, const std::function<std::vector<NamedTensor>()>& make) override;
  bool trains() const override { return trains_; }

 private:
  RunSurroundings(Session& session, std::vector<Rows> own, bool trains, bool is_rehearsal) : s_(session), own_(std::move(own)), trains_(trains), is_rehearsal_(is_rehearsal) {}
  config::Chosen plugin_of(const ModelFiles& files) const;
  void batches_of(const Split& split, std::span<const std::int64_t> rows, const std::function<void(const Batch&)>& work) const;

  Session& s_;
  std::vector<Rows> own_;  // empty: what the run's steps take of the training split, and what it measures of the validation split
  bool trains_, is_rehearsal_;
};

}  // namespace attune::train
