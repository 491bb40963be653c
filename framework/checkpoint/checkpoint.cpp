#include "checkpoint/checkpoint.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "data/hdf5.hpp"
#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

constexpr const char* format_name = "attune-checkpoint";
constexpr std::int64_t format_version = 1;
constexpr const char* state_file = "state.h5";
constexpr const char* marker_file = "COMPLETE";

// ---- Names: step-000025, and .step-000025.*.tmp while it is written or removed

std::string folder_name(std::int64_t step) { return fmt::format("step-{:06}", step); }

std::optional<std::int64_t> step_of(const fs::path& path) {
  const auto name = path.filename().string();
  std::int64_t step = 0;
  if (!name.starts_with("step-")) return {};
  const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return {};
  return step;
}

fs::path temporary_name(const fs::path& path, const char* purpose) {
  return path.parent_path() / fmt::format(".{}.{}.{}.tmp", path.filename().string(), purpose, ::getpid());
}

bool is_temporary(const fs::path& path) {
  const auto name = path.filename().string();
  return name.starts_with(".step-") && name.ends_with(".tmp");
}

/// Newest first.
std::vector<fs::path> checkpoints(const fs::path& folder) {
  std::vector<fs::path> found;
  if (!fs::is_directory(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory() && step_of(entry.path())) found.push_back(entry.path());
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return *step_of(a) > *step_of(b); });
  return found;
}

// ---- state.h5: groups tensors, texts and numbers; members 000000, 000001, ... each with its name as an attribute

class EntryWriter {
 public:
  EntryWriter(const hdf5::Group& root, const std::string& group) : group_(root.create_group(group)) {}
  void add(const std::string& name, const at::Tensor& tensor) {
    const auto key = fmt::format("{:06}", count_++);
    group_.write(key, tensor);
    group_.dataset(key).attributes().set("name", name);
  }

 private:
  hdf5::Group group_;
  std::int64_t count_ = 0;
};

at::Tensor to_bytes(const std::string& text) {
  auto bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

std::string to_text(const at::Tensor& bytes) { return {static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()}; }

void write_state(const fs::path& path, std::int64_t step, const Snapshot& snapshot) {
  const auto root = hdf5::create_file(path);
  root.attributes().set("format", format_name);
  root.attributes().set("version", format_version);
  root.attributes().set("step", step);
  EntryWriter tensors(root, "tensors"), texts(root, "texts"), numbers(root, "numbers");
  for (const auto& [name, tensor] : snapshot.tensors) tensors.add(name, tensor.detach().cpu().contiguous());
  for (const auto& [name, text] : snapshot.texts) texts.add(name, to_bytes(text));
  for (const auto& [name, number] : snapshot.numbers) numbers.add(name, at::scalar_tensor(number, at::kLong));
  hdf5::flush(root);
}

/// use(name, dataset) for each, in the order they were written.
template <class Use>
void for_each_entry(const hdf5::Group& root, const std::string& group_name, Use use) {
  const auto group = root.group(group_name);
  auto keys = group.members();
  std::sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return std::pair(a.size(), a) < std::pair(b.size(), b); });
  for (const auto& key : keys) {
    const auto dataset = group.dataset(key);
    use(dataset.attributes().text("name"), dataset);
  }
}

/// Small things are checked before they are read; for tensors hdf5::Dataset does that against the file's size.
void expect(const hdf5::Dataset& dataset, at::ScalarType dtype, std::size_t dimensions) {
  if (dataset.dtype() != dtype || dataset.shape().size() != dimensions)
    fail("{}: is not what a checkpoint holds there; the file was not written by Attune, so resume from another checkpoint", dataset.place().text());
}

Snapshot read_state(const fs::path& path) {
  const auto root = hdf5::open_file(path);
  if (!root.attributes().has("format") || root.attributes().text("format") != format_name)
    fail("{}: is not a checkpoint of Attune (attribute 'format' is not \"{}\"); give the run folder that Attune wrote", path.string(), format_name);
  if (const auto version = root.attributes().integer("version"); version != format_version)
    fail("{}: has format version {}, and this Attune reads version {}; resume with the Attune that wrote it", path.string(), version, format_version);
  Snapshot snapshot;
  for_each_entry(root, "tensors", [&](const auto& name, const auto& dataset) { snapshot.tensors.emplace_back(name, dataset.read()); });
  for_each_entry(root, "texts", [&](const auto& name, const auto& dataset) {
    expect(dataset, at::kByte, 1);
    snapshot.texts[name] = to_text(dataset.read());
  });
  for_each_entry(root, "numbers", [&](const auto& name, const auto& dataset) {
    expect(dataset, at::kLong, 0);
    snapshot.numbers[name] = dataset.read().template item<std::int64_t>();
  });
  return snapshot;
}

// ---- Whole or not

void write_marker(const fs::path& checkpoint) {
  const auto state = checkpoint / state_file;
  const nlohmann::json marker{{"file", state_file}, {"bytes", fs::file_size(state)}, {"sha256", sha256_of_file(state)}};
  write_text(checkpoint / marker_file, marker.dump(2) + "\n");
}

void check_whole(const fs::path& checkpoint) {
  const auto state = checkpoint / state_file;
  if (!fs::is_regular_file(checkpoint / marker_file))
    fail("{}: was not saved to the end (there is no {}); remove it, or resume from another", checkpoint.string(), marker_file);
  const auto marker = nlohmann::json::parse(read_text(checkpoint / marker_file), nullptr, /*allow_exceptions=*/false);
  if (!marker.is_object() || !marker.contains("bytes") || !marker["bytes"].is_number_unsigned() || !marker.contains("sha256") || !marker["sha256"].is_string())
    fail("{}: is damaged; remove {}, or resume from another", (checkpoint / marker_file).string(), checkpoint.string());
  if (!fs::is_regular_file(state)) fail("{}: has no {}; remove it, or resume from another", checkpoint.string(), state_file);
  if (fs::file_size(state) != marker["bytes"].get<std::uint64_t>())
    fail("{}: has {} bytes, but {} were saved; remove {}, or resume from another", state.string(), fs::file_size(state),
         marker["bytes"].get<std::uint64_t>(), checkpoint.string());
  if (sha256_of_file(state) != marker["sha256"].get<std::string>())
    fail("{}: is damaged (its sha256 is not the one noted when it was saved); remove {}, or resume from another", state.string(), checkpoint.string());
}

/// Under another name first, so that a half-removed checkpoint is never taken for a whole one.
void remove_checkpoint(const fs::path& path) {
  const auto doomed = temporary_name(path, "removed");
  fs::rename(path, doomed);
  fs::remove_all(doomed);
}

void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder))
    if (is_temporary(entry.path())) leftovers.push_back(entry.path());
  for (const auto& path : leftovers) fs::remove_all(path);
}

void write_checkpoint(const fs::path& path, std::int64_t step, const Snapshot& snapshot) {
  fs::create_directories(path.parent_path());
  remove_leftovers(path.parent_path());
  const auto temporary = temporary_name(path, "new");
  try {
    fs::create_directory(temporary);
    write_state(temporary / state_file, step, snapshot);
    sync_to_disk(temporary / state_file);
    write_marker(temporary);
    if (fs::exists(path)) remove_checkpoint(path);
    fs::rename(temporary, path);
    sync_to_disk(path.parent_path());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

/// What the file system refuses (no space, no permission) is for the user to put right.
void on_root_with_files(const Comm& comm, const std::function<void()>& work) {
  on_root(comm, [&] {
    try {
      work();
    } catch (const fs::filesystem_error& error) {
      fail("{}: {}; free space or correct the permissions, and run again", error.path1().string(), error.code().message());
    }
  });
}

// ---- From rank 0 to all

std::int64_t broadcast_number(std::int64_t number, const Comm& comm) {
  comm.broadcast(&number, sizeof number);
  return number;
}

Snapshot broadcast_snapshot(const Snapshot& mine, const Comm& comm) {
  if (comm.size() == 1) return mine;
  Snapshot all;
  const auto tensors = broadcast_number(static_cast<std::int64_t>(mine.tensors.size()), comm);
  for (std::int64_t i = 0; i < tensors; ++i) {
    auto [name, tensor] = comm.root() ? mine.tensors[i] : std::pair<std::string, at::Tensor>();
    name = comm.broadcast(name);
    all.tensors.emplace_back(name, parallel::broadcast_tensor(tensor, comm));
  }
  const std::vector<std::pair<std::string, std::string>> texts(mine.texts.begin(), mine.texts.end());
  const auto text_count = broadcast_number(static_cast<std::int64_t>(texts.size()), comm);
  for (std::int64_t i = 0; i < text_count; ++i) {
    const auto name = comm.broadcast(comm.root() ? texts[i].first : "");
    all.texts[name] = comm.broadcast(comm.root() ? texts[i].second : "");
  }
  const std::vector<std::pair<std::string, std::int64_t>> numbers(mine.numbers.begin(), mine.numbers.end());
  const auto number_count = broadcast_number(static_cast<std::int64_t>(numbers.size()), comm);
  for (std::int64_t i = 0; i < number_count; ++i) {
    const auto name = comm.broadcast(comm.root() ? numbers[i].first : "");
    all.numbers[name] = broadcast_number(comm.root() ? numbers[i].second : 0, comm);
  }
  return all;
}

}  // namespace

void save_checkpoint(const fs::path& folder, std::int64_t step, const Snapshot& snapshot, const Comm& comm) {
  on_root_with_files(comm, [&] { write_checkpoint(folder / folder_name(step), step, snapshot); });
}

Snapshot load_checkpoint(const fs::path& path, const Comm& comm) {
  Snapshot snapshot;
  on_root_with_files(comm, [&] {
    check_whole(path);
    snapshot = read_state(path / state_file);
  });
  return broadcast_snapshot(snapshot, comm);
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder, const Comm& comm, std::ostream& warnings) {
  std::string newest;
  on_root_with_files(comm, [&] {
    for (const auto& path : checkpoints(folder)) {
      try {
        check_whole(path);
        newest = path.string();
        return;
      } catch (const Error& error) {
        warnings << "warning: passed over a checkpoint. " << error.what() << std::endl;
      }
    }
  });
  newest = comm.broadcast(newest);
  return newest.empty() ? std::nullopt : std::optional<fs::path>(newest);
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder, const Comm& comm) { return newest_checkpoint(folder, comm, std::cerr); }

void prune_checkpoints(const fs::path& folder, std::int64_t keep, const Comm& comm) {
  ATTUNE_ASSERT(keep >= 1, "keep = {}", keep);
  on_root_with_files(comm, [&] {
    std::int64_t kept = 0;
    for (const auto& path : checkpoints(folder)) {
      if (!fs::exists(path / marker_file)) continue;
      if (++kept > keep) remove_checkpoint(path);
    }
  });
}

}  // namespace attune
