#include "checkpoint/writer.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/state_file.hpp"
#include "device/stream.hpp"
#include "parallel/mpi.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

/// Neighbouring tensors of those that all have, about as many bytes for each rank, and the rank's
/// own; texts and numbers go with rank 0's.
Snapshot share_of(const Snapshot& snapshot, int rank, int ranks) {
  Snapshot share;
  if (rank == 0) {
    share.texts = snapshot.texts;
    share.numbers = snapshot.numbers;
  }
  std::size_t all = 0;
  for (const auto& shard : snapshot.tensors) all += shard.tensor.nbytes();
  all = std::max<std::size_t>(1, all);
  std::size_t before = 0;
  for (const auto& shard : snapshot.tensors) {
    const auto middle = before + shard.tensor.nbytes() / 2;
    if (static_cast<int>(middle * ranks / all) == rank || (middle == all && rank == ranks - 1))
      share.own.push_back(shard);
    before += shard.tensor.nbytes();
  }
  share.own.insert(share.own.end(), snapshot.own.begin(), snapshot.own.end());
  return share;
}

/// Files of about this size: few of them, and little beside the state, as each is made in memory
/// before it is written.
std::size_t part_bytes(std::size_t share) {
  return std::clamp(share / 16, std::size_t{32} << 20, std::size_t{256} << 20);
}

std::vector<checkpoint::Part> write_parts(const fs::path& folder, int rank, std::int64_t step,
                                          const Snapshot& share) {
  std::vector<checkpoint::Part> parts;
  Snapshot part{.texts = share.texts, .numbers = share.numbers};
  const auto write = [&] {
    checkpoint::with_files([&] {
      parts.push_back(checkpoint::write_state(
          folder / checkpoint::part_name(rank, static_cast<int>(parts.size())), step, part));
    });
    part = {};
  };
  const auto most = part_bytes(share.bytes());
  for (const auto& shard : share.own) {
    if (!part.own.empty() && part.bytes() + shard.tensor.nbytes() > most) write();
    part.own.push_back(shard);
  }
  if (parts.empty() || !part.own.empty()) write();
  return parts;
}

/// For copies from the device that the tensors are on.
device::SideStream stream_beside(const Snapshot& share) {
  for (const auto& shard : share.own)
    if (!shard.tensor.is_cpu()) return device::SideStream(shard.tensor.device());
  return device::SideStream(c10::kCPU);
}

std::string to_json(const std::vector<checkpoint::Part>& parts) {
  auto list = nlohmann::json::array();
  for (const auto& part : parts) list.push_back({part.file, part.bytes, part.sha256});
  return list.dump();
}

}  // namespace

std::size_t most_of_part(std::size_t share, std::size_t largest) {
  return std::min(share, std::max(part_bytes(share), largest));
}

CheckpointWriter::CheckpointWriter(fs::path folder, Comm world)
    : folder_(std::move(folder)), comm_(std::move(world)) {}

CheckpointWriter::~CheckpointWriter() {
  if (parts_.valid()) parts_.wait();
}

Snapshot CheckpointWriter::stage(const Snapshot& share, const device::SideStream& side) {
  Snapshot copy = share;
  buffers_.resize(share.own.size());
  for (std::size_t i = 0; i < share.own.size(); ++i) {
    const auto& tensor = share.own[i].tensor;
    auto& buffer = buffers_[i];
    if (!buffer.defined() || buffer.sizes() != tensor.sizes() ||
        buffer.scalar_type() != tensor.scalar_type())
      buffer = device::pinned_like(tensor);
    copy.own[i].tensor = buffer;
  }
  side.after_current();
  side.run([&] {
    for (std::size_t i = 0; i < share.own.size(); ++i)
      buffers_[i].copy_(share.own[i].tensor.detach(), /*non_blocking=*/true);
  });
  side.before_current();  // the next update comes after the copies
  return copy;
}

void CheckpointWriter::begin(std::int64_t step, const Snapshot& snapshot, bool staged) {
  ATTUNE_ASSERT(!in_flight(), "the checkpoint of step {} is still being written", step_);
  step_ = step;
  std::string temporary;
  checkpoint::on_root_with_files(
      comm_, [&] { temporary = checkpoint::make_temporary(folder_, step).string(); });
  temporary_ = comm_.broadcast(temporary);
  const auto share = share_of(snapshot, comm_.rank(), comm_.size());
  const auto side = stream_beside(share);
  auto write = [folder = temporary_, rank = comm_.rank(), step, side,
                share = staged ? stage(share, side) : share] {
    side.wait();
    return write_parts(folder, rank, step, share);
  };
  parts_ = std::async(staged ? std::launch::async : std::launch::deferred, std::move(write));
}

bool CheckpointWriter::part_is_done() const {
  return parts_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

fs::path CheckpointWriter::publish(bool best) {
  const auto path = checkpoint::folder_of(folder_, step_);
  std::string mine;
  try {
    comm_.agree([&] { mine = to_json(parts_.get()); });
    const auto gathered = comm_.gather(mine);
    checkpoint::on_root_with_files(comm_, [&] {
      std::vector<checkpoint::Part> parts;
      for (const auto& text : gathered)
        for (const auto& part : nlohmann::json::parse(text))
          parts.push_back({part[0], part[1], part[2]});
      checkpoint::publish(temporary_, path, parts);
      checkpoint::link_to(path, "latest");
      if (best) checkpoint::link_to(path, "best");
    });
  } catch (...) {
    std::error_code ignored;
    if (comm_.root()) fs::remove_all(temporary_, ignored);
    throw;
  }
  return path;
}

}  // namespace attune
