// The state in a checkpoint, for ranks that each need a part of it.
#pragma once
#include <attune/comm.hpp>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "parallel/shard.hpp"

namespace attune {

/// What is in a checkpoint is known to every rank, and values come piece by piece. So any number of
/// ranks may resume, and none holds more than its own state and one piece.
class StoredState {
 public:
  /// path: folder/step-000025. Error if the checkpoint is incomplete, a size or SHA-256 differs, or
  /// the format is another; checked before anything is allocated. Collective.
  StoredState(std::filesystem::path path, Comm comm);

  /// The tensors by name, on the meta device.
  const std::map<std::string, at::Tensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& texts() const { return texts_; }
  const std::map<std::string, std::int64_t>& numbers() const { return numbers_; }

  /// Calls use(piece) on every rank for each piece of the tensors of these names, with values on
  /// the host. Each piece is read by one rank. is_wanted: the same on every rank. Collective.
  void read(const std::function<bool(const std::string& name)>& is_wanted,
            const std::function<void(const parallel::Shard& piece)>& use) const;

 private:
  struct Part {
    std::string file;
    std::vector<parallel::Shard> pieces;  // on the meta device
  };
  /// The rank that reads a part.
  int reader(std::size_t part) const { return static_cast<int>(part) % comm_.size(); }
  void check_complete();

  std::filesystem::path path_;
  Comm comm_;
  std::vector<Part> parts_;
  std::map<std::string, at::Tensor> tensors_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, std::int64_t> numbers_;
};

}  // namespace attune
