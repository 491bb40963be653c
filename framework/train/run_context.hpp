// RunContext for strategies, implemented by the session.
#pragma once
#include <attune/run_context.hpp>

#include <span>

#include "train/session.hpp"

namespace attune::train {

/// Rows of a split.
struct Rows {
  std::string split;
  std::vector<std::int64_t> rows;
};

/// 0 .. count - 1
std::vector<std::int64_t> first_rows(std::int64_t count);

class SessionModels final : public RunModels {
 public:
  explicit SessionModels(Session& session) : s_(session) {}
  Tokenizer tokenizer() override;
  std::shared_ptr<Model> open(const std::string& path) override;
  std::string sha256(const std::string& path) override;

 private:
  config::Chosen plugin_of(const ModelFiles& files) const;
  Session& s_;
};

class SessionData final : public RunData {
 public:
  /// own: rows for for_each_own_batch; empty selects the training rows that the run's steps use and
  /// the validation rows that it evaluates. is_rehearsal: every pass over other data is a single
  /// batch, of the longest samples.
  SessionData(Session& session, std::vector<Rows> own, bool is_rehearsal)
      : s_(session), own_(std::move(own)), is_rehearsal_(is_rehearsal) {}
  std::vector<double> class_weights() override { return s_.data->class_weights(); }
  void for_each_batch(const std::string& path, std::int64_t samples, const Work& work) override;
  void for_each_own_batch(const Work& work) override;

 private:
  void batches_of(const Split& split, std::span<const std::int64_t> rows, const Work& work) const;
  Session& s_;
  std::vector<Rows> own_;
  bool is_rehearsal_;
};

class SessionFiles final : public TensorFiles {
 public:
  /// is_rehearsal: do not write files.
  SessionFiles(Session& session, bool is_rehearsal) : s_(session), is_rehearsal_(is_rehearsal) {}
  Tensors read_or_make(const std::string& path, const std::map<std::string, std::string>& made_from,
                       const std::function<Tensors()>& make) override;

 private:
  Session& s_;
  bool is_rehearsal_;
};

/// A RunContext and the objects it refers to. The session must outlive it.
class SessionContext {
 public:
  /// Context of a training run.
  explicit SessionContext(Session& session) : SessionContext(session, {}, true, false) {}
  /// Context for trial steps on these rows, training rows first. Writes no files.
  static SessionContext rehearsal(Session& session, std::vector<Rows> rows) {
    return {session, std::move(rows), true, true};
  }
  /// Context for an evaluation of these rows without training.
  static SessionContext measurement(Session& session, Rows rows) {
    return {session, {std::move(rows)}, false, false};
  }
  SessionContext(const SessionContext&) = delete;
  SessionContext& operator=(const SessionContext&) = delete;

  RunContext& run() { return run_; }

 private:
  SessionContext(Session& session, std::vector<Rows> own, bool trains, bool is_rehearsal);

  SessionModels models_;
  SessionData data_;
  SessionFiles files_;
  RunContext run_;
};

}  // namespace attune::train
