// Trained parameters that the ranks of a node hold once. Decision record:
// docs/design/0040-trained-weights-once-per-node.md.
#pragma once
#include <attune/comm.hpp>

#include <string>
#include <vector>

#include "parallel/shard.hpp"
#include "parallel/sharing.hpp"
#include "parallel/tensors.hpp"

namespace attune::parallel {

/// Use around each update, on every rank of a copy:
///
///   memory.begin_update();       // every rank is done with the old values
///   ...                          // writes its own elements, in place
///   memory.finish_update(plan);  // every rank sees all new values
///
/// Everything else leaves the parameters as they are, except that all ranks may give them the same
/// new values and then call accept().
class NodeParameters {
 public:
  /// Puts the parameters into memory that their node shares; where that is impossible, each rank
  /// keeps its own. copy: ranks with the same parameters, of which each updates its part. node:
  /// those of this rank's node. Collective over the copy.
  NodeParameters(NamedTensors parameters, const Comm& copy, const Comm& node);

  /// Error if something other than an update wrote to a parameter, or replaced it, as far as its
  /// version shows.
  void check_unchanged() const;
  void begin_update() const { node_.barrier(); }
  void finish_update(const ShardPlan& plan);
  void accept();

  /// Why this node's memory could not be shared; otherwise empty.
  const std::string& obstacle() const { return obstacle_; }

 private:
  void place();
  void choose_exchange();

  NamedTensors parameters_;
  Comm copy_;
  Comm node_;
  std::string obstacle_;
  // Ranks that get new values from each other, and their places in the copy: one of every node, so
  // that a value travels to a node once.
  RankGroup exchange_;
  std::vector<int> members_;
  std::vector<Version> versions_;  // by parameter
};

}  // namespace attune::parallel
