// What strategies may ask of a run, answered by its session.
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
  /// own: empty for what the run's steps take of the training split, and what it measures of the
  /// validation split. is_rehearsal: every pass over data is one batch.
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
  /// is_rehearsal: nothing is written.
  SessionFiles(Session& session, bool is_rehearsal) : s_(session), is_rehearsal_(is_rehearsal) {}
  Tensors read_or_make(const std::string& path, const std::map<std::string, std::string>& made_from,
                       const std::function<Tensors()>& make) override;

 private:
  Session& s_;
  bool is_rehearsal_;
};

/// The parts and the context made of them. The session must outlive it.
class SessionContext {
 public:
  /// Of a run that trains.
  explicit SessionContext(Session& session) : SessionContext(session, {}, true, false) {}
  /// Of one that only tries steps with these rows, those of the training split first: nothing is
  /// written.
  static SessionContext rehearsal(Session& session, std::vector<Rows> rows) {
    return {session, std::move(rows), true, true};
  }
  /// Of one that is only measured on these rows.
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
