// What strategies report beside their loss (Loss::scalars), over the micro-batches of a step and
// the data-parallel group.
#pragma once
#include <attune/comm.hpp>
#include <attune/loss.hpp>

#include <map>
#include <string>
#include <vector>

namespace attune::train {

class ScalarSums {
 public:
  /// Of a micro-batch of this rank, by its index in the step. Error: a name that is no key of
  /// metrics.jsonl.
  void add(std::int64_t micro_batch, const std::map<std::string, Scalar>& scalars);
  /// What was added on this rank.
  std::size_t size() const { return reported_.size(); }
  /// sum / count by name, added up in the order of the micro-batches: the same on every rank,
  /// whichever of them reported a name. Collective.
  std::map<std::string, double> means(const Comm& data) const;

 private:
  struct Reported {
    std::int64_t micro_batch;
    std::string name;
    Scalar scalar;
  };
  static std::string text_of(const std::vector<Reported>& all);
  static void read(const std::string& text, std::vector<Reported>& all);

  std::vector<Reported> reported_;
};

}  // namespace attune::train
