// The ranks of a run, passed by value, never global. Every call is collective: all ranks make it, in the same order.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace attune {

class Comm {
 public:
  /// This process alone; needs no MPI.
  Comm();

  int rank() const;
  int size() const;
  int local_rank() const;  // among the ranks of this node
  int local_size() const;
  bool root() const { return rank() == 0; }

  void barrier() const;
  void broadcast(void* bytes, std::size_t count, int from = 0) const;
  std::string broadcast(std::string text, int from = 0) const;
  double sum(double value) const;
  std::int64_t sum(std::int64_t value) const;
  std::int64_t max(std::int64_t value) const;
  /// Every rank's text, by rank, on every rank.
  std::vector<std::string> gather(const std::string& text) const;

  /// Runs work on this rank; when it throws on any rank, all ranks throw the same: an Error (or Fault) with the text of the lowest rank
  /// that failed. So one rank's mistake ends all ranks, and is reported once.
  void agree(const std::function<void()>& work) const;

  struct Impl;  // parallel/mpi.hpp
  explicit Comm(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace attune
