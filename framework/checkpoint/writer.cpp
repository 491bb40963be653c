#include "checkpoint/writer.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <nlohmann/json.hpp>

#include "checkpoint/state_file.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "parallel/mpi.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

/// Neighbouring tensors, about as many bytes for each rank; texts and numbers go with rank 0's.
Snapshot share_of(const Snapshot& snapshot, int rank, int ranks) {
  Snapshot share;
  if (rank == 0) share.texts = snapshot.texts, share.numbers = snapshot.numbers;
  const auto all = std::max<std::size_t>(1, snapshot.bytes());
  std::size_t before = 0;
  for (const auto& entry : snapshot.tensors) {
    const auto middle = before + entry.second.nbytes() / 2;
    if (static_cast<int>(middle * ranks / all) == rank || (middle == all && rank == ranks - 1)) share.tensors.push_back(entry);
    before += entry.second.nbytes();
  }
  return share;
}

checkpoint::Part write_part(const fs::path& file, std::int64_t step, const Snapshot& share) {
  checkpoint::Part part;
  checkpoint::with_files([&] {
    checkpoint::write_state(file, step, share);
    sync_to_disk(file);
    part = {fs::file_size(file), sha256_of_file(file)};
  });
  return part;
}

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path folder, Comm comm) : folder_(std::move(folder)), comm_(std::move(comm)) {}

CheckpointWriter::~CheckpointWriter() {
  if (part_.valid()) part_.wait();
}

Snapshot CheckpointWriter::stage(const Snapshot& share) {
  Snapshot copy{{}, share.texts, share.numbers};
  buffers_.resize(share.tensors.size());
  for (std::size_t i = 0; i < share.tensors.size(); ++i) {
    const auto& [name, tensor] = share.tensors[i];
    auto& buffer = buffers_[i];
    if (!buffer.defined() || buffer.sizes() != tensor.sizes() || buffer.scalar_type() != tensor.scalar_type())
      buffer = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).requires_grad(false));
    buffer.copy_(tensor.detach());
    copy.tensors.emplace_back(name, buffer);
  }
  return copy;
}

void CheckpointWriter::begin(std::int64_t step, const Snapshot& snapshot, bool staged) {
  ATTUNE_ASSERT(!in_flight(), "the checkpoint of step {} is still being written", step_);
  step_ = step;
  std::string temporary;
  checkpoint::on_root_with_files(comm_, [&] { temporary = checkpoint::make_temporary(folder_, step).string(); });
  temporary_ = comm_.broadcast(temporary);
  const auto share = share_of(snapshot, comm_.rank(), comm_.size());
  const auto file = checkpoint::part_of(temporary_, comm_.rank());
  auto write = [file, step, share = staged ? stage(share) : share] { return write_part(file, step, share); };
  part_ = std::async(staged ? std::launch::async : std::launch::deferred, std::move(write));
}

bool CheckpointWriter::part_is_done() const { return part_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

fs::path CheckpointWriter::publish(bool best) {
  const auto path = checkpoint::folder_of(folder_, step_);
  checkpoint::Part mine;
  try {
    comm_.agree([&] { mine = part_.get(); });
    const auto gathered = comm_.gather(nlohmann::json{mine.bytes, mine.sha256}.dump());
    checkpoint::on_root_with_files(comm_, [&] {
      std::vector<checkpoint::Part> parts;
      for (const auto& text : gathered) {
        const auto part = nlohmann::json::parse(text);
        parts.push_back({part[0].get<std::uint64_t>(), part[1].get<std::string>()});
      }
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
