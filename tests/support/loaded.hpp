// A checkpoint with all of its tensors whole, for tests that compare it with what was saved.
#pragma once
#include <ATen/ATen.h>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/stored_state.hpp"

namespace attune {

/// Collective.
inline Snapshot load_checkpoint(const std::filesystem::path& path, const Comm& comm) {
  const StoredState stored(path, comm);
  std::vector<parallel::Shard> pieces;
  stored.read([](const std::string&) { return true; },
              [&](const parallel::Shard& piece) { pieces.push_back(piece); });
  Snapshot all{.texts = stored.texts(), .numbers = stored.numbers()};
  for (const auto& [name, tensor] : parallel::put_together(pieces))
    all.tensors.emplace_back(name, tensor);
  return all;
}

}  // namespace attune
