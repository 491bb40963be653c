// A group of ranks, passed by value, never global. Every call is collective: all ranks of the group
// make it, in the same order. Which groups a run has: attune/mesh.hpp.
#pragma once
#include <attune/api.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

ATTUNE_API_BEGIN
namespace attune {

class Comm {
 public:
  /// This process alone; needs no MPI.
  Comm();

  int rank() const;
  int size() const;
  bool root() const { return rank() == 0; }

  /// The ranks that gave the same color, in the order of their keys, on a communicator of their
  /// own. color: 0 or more. Equal keys keep the order of this group. The communicator is freed with
  /// the last copy.
  Comm split(int color, int key = 0) const;
  /// The ranks of this group that share this rank's node.
  Comm split_by_node() const;

  void barrier() const;
  void broadcast(void* bytes, std::size_t count, int from = 0) const;
  std::string broadcast(std::string text, int from = 0) const;
  double sum(double value) const;
  std::int64_t sum(std::int64_t value) const;
  std::int64_t max(std::int64_t value) const;
  /// Every rank's text, by rank, on every rank.
  std::vector<std::string> gather(const std::string& text) const;

  /// Runs work on this rank; when it throws on any rank, all ranks of the group throw the same: an
  /// Error (or Fault) with the text of the lowest rank that failed. One rank's mistake ends all
  /// ranks of the run, also those outside the group, and is reported once.
  void agree(const std::function<void()>& work) const;

  struct Impl;  // parallel/mpi.hpp
  explicit Comm(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace attune
ATTUNE_API_END
