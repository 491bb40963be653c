// A group of ranks, passed by value. Communication calls are collective: all ranks of the group
// must make them in the same order. attune/mesh.hpp defines the groups of a run.
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
  /// A group of this process alone. Needs no MPI.
  Comm();

  int rank() const;
  int size() const;
  bool root() const { return rank() == 0; }

  /// Splits the group as MPI_Comm_split does: ranks with the same color (at least 0) form a new
  /// communicator, ordered by key. Ranks with equal keys keep their order. The communicator is
  /// freed with its last copy.
  Comm split(int color, int key = 0) const;
  /// The ranks of this group that share this rank's node.
  Comm split_by_node() const;

  void barrier() const;
  /// Copies `count` bytes from rank `from` to all ranks, in place.
  void broadcast(void* bytes, std::size_t count, int from = 0) const;
  /// Returns the text of rank `from` on every rank.
  std::string broadcast(std::string text, int from = 0) const;
  /// Sum or maximum over all ranks, on every rank.
  double sum(double value) const;
  std::int64_t sum(std::int64_t value) const;
  std::int64_t max(std::int64_t value) const;
  /// Returns the texts of all ranks, ordered by rank, on every rank. At most 1 GiB in total.
  std::vector<std::string> gather(const std::string& text) const;

  /// Runs `work`. If it throws on any rank, all ranks of the group throw the same Error (or Fault),
  /// with the text of the lowest failed rank. An error thus ends the whole run, including ranks
  /// outside the group, and is reported once.
  void agree(const std::function<void()>& work) const;

  struct Impl;  // parallel/mpi.hpp
  explicit Comm(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace attune
ATTUNE_API_END
