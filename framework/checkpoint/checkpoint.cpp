#include "checkpoint/checkpoint.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "checkpoint/folder.hpp"
#include "checkpoint/state_file.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "parallel/mpi.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

constexpr const char* marker_file = "COMPLETE";

// ---- Names: step-000025, and .step-000025.*.tmp while it is written or removed

std::optional<std::int64_t> number_in(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) return {};
  return number;
}

std::optional<std::int64_t> step_of(const fs::path& path) {
  const auto name = path.filename().string();
  return name.starts_with("step-") ? number_in(std::string_view(name).substr(5)) : std::nullopt;
}

fs::path temporary_name(const fs::path& path, const char* purpose) {
  return path.parent_path() /
         fmt::format(".{}.{}.{}.tmp", path.filename().string(), purpose, ::getpid());
}

bool is_temporary(const fs::path& path) {
  const auto name = path.filename().string();
  return name.starts_with(".") && name.ends_with(".tmp");
}

/// Newest first.
std::vector<fs::path> checkpoints_in(const fs::path& folder) {
  std::vector<fs::path> found;
  if (!fs::is_directory(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (!entry.is_symlink() && entry.is_directory() && step_of(entry.path()))
      found.push_back(entry.path());
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return *step_of(a) > *step_of(b); });
  return found;
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

// ---- The marker

/// Nothing that leads out of the folder.
bool is_part_name(const std::string& name) {
  return name.starts_with("state-") && name.ends_with(".h5") && name.find('/') == std::string::npos;
}

void write_marker(const fs::path& path, const std::vector<checkpoint::Part>& parts) {
  nlohmann::ordered_json marker{{"version", checkpoint::format_version},
                                {"parts", nlohmann::json::array()}};
  for (const auto& part : parts)
    marker["parts"].push_back(
        {{"file", part.file}, {"bytes", part.bytes}, {"sha256", part.sha256}});
  write_text(path / marker_file, marker.dump(2) + "\n");
}

}  // namespace

namespace checkpoint {

fs::path folder_of(const fs::path& checkpoints, std::int64_t step) {
  return checkpoints / fmt::format("step-{:06}", step);
}
std::string part_name(int rank, int number) {
  return fmt::format("state-{:04}-{:02}.h5", rank, number);
}

fs::path make_temporary(const fs::path& checkpoints, std::int64_t step) {
  fs::create_directories(checkpoints);
  remove_leftovers(checkpoints);
  const auto temporary = temporary_name(folder_of(checkpoints, step), "new");
  fs::create_directory(temporary);
  return temporary;
}

std::vector<Part> read_marker(const fs::path& path) {
  if (!fs::is_regular_file(path / marker_file))
    fail("{}: is incomplete (there is no {}); remove it, or resume from another checkpoint",
         path.string(), marker_file);
  const auto damaged = [&]() {
    fail("{}: is damaged; remove {}, or resume from another checkpoint",
         (path / marker_file).string(), path.string());
  };
  const auto marker =
      nlohmann::json::parse(read_text(path / marker_file), nullptr, /*allow_exceptions=*/false);
  if (!marker.is_object() || !marker.contains("version") || !marker["version"].is_number_integer())
    damaged();
  if (marker["version"] != format_version)
    fail(
        "{}: has format version {}, and this Attune reads version {}; resume with the Attune that "
        "wrote it",
        path.string(), marker["version"].dump(), format_version);
  if (!marker.contains("parts") || !marker["parts"].is_array() || marker["parts"].empty())
    damaged();
  std::vector<Part> parts;
  for (const auto& part : marker["parts"]) {
    if (!part.is_object() || !part.contains("file") || !part["file"].is_string() ||
        !is_part_name(part["file"].get<std::string>()) || !part.contains("bytes") ||
        !part["bytes"].is_number_unsigned() || !part.contains("sha256") ||
        !part["sha256"].is_string())
      damaged();
    parts.push_back({part["file"].get<std::string>(), part["bytes"].get<std::uint64_t>(),
                     part["sha256"].get<std::string>()});
  }
  return parts;
}

void check_part(const fs::path& checkpoint, const Part& part) {
  const auto file = checkpoint / part.file;
  const auto path = checkpoint.string();
  if (!fs::is_regular_file(file))
    fail("{}: is missing; remove {}, or resume from another checkpoint", file.string(), path);
  if (fs::file_size(file) != part.bytes)
    fail("{}: has {} bytes, but {} were saved; remove {}, or resume from another checkpoint",
         file.string(), fs::file_size(file), part.bytes, path);
  if (sha256_of_file(file) != part.sha256)
    fail(
        "{}: is damaged (its sha256 differs from the saved one); remove {}, or resume from another "
        "checkpoint",
        file.string(), path);
}

std::vector<Part> check_whole(const fs::path& path) {
  const auto parts = read_marker(path);
  for (const auto& part : parts) check_part(path, part);
  return parts;
}

void publish(const fs::path& temporary, const fs::path& path, const std::vector<Part>& parts) {
  for (const auto& part : parts)
    if (const auto file = temporary / part.file;
        !fs::is_regular_file(file) || fs::file_size(file) != part.bytes)
      fail(
          "{}: was written by another rank, but rank 0 does not see the complete file: put "
          "`output` on a file system that all nodes share",
          file.string());
  write_marker(temporary, parts);
  if (fs::exists(path)) {
    bool whole = true;
    try {
      check_whole(path);
    } catch (const Error&) {
      whole = false;
    }
    ATTUNE_ASSERT(!whole, "{} already exists and is complete", path.string());
    remove_checkpoint(path);
  }
  move_into_place(temporary, path);
}

void link_to(const fs::path& path, const char* name) {
  const auto temporary = path.parent_path() / fmt::format(".{}.{}.tmp", name, ::getpid());
  std::error_code ignored;
  fs::remove(temporary, ignored);
  fs::create_directory_symlink(path.filename(), temporary, ignored);
  fs::rename(temporary, path.parent_path() / name, ignored);
}

void with_files(const std::function<void()>& work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    fail("{}", sentence_of(error));
  }
}

void on_root_with_files(const Comm& comm, const std::function<void()>& work) {
  on_root(comm, [&] { with_files(work); });
}

}  // namespace checkpoint

std::size_t Snapshot::bytes() const {
  std::size_t sum = 0;
  for (const auto* shards : {&tensors, &own})
    for (const auto& shard : *shards) sum += shard.tensor.nbytes();
  return sum;
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder, const Comm& comm,
                                          std::ostream& warnings) {
  std::string newest;
  checkpoint::on_root_with_files(comm, [&] {
    for (const auto& path : checkpoints_in(folder)) {
      try {
        checkpoint::check_whole(path);
        newest = path.string();
        return;
      } catch (const Error& error) {
        warnings << "warning: skipped a checkpoint. " << error.what() << std::endl;
      }
    }
  });
  newest = comm.broadcast(newest);
  return newest.empty() ? std::nullopt : std::optional<fs::path>(newest);
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder, const Comm& comm) {
  return newest_checkpoint(folder, comm, std::cerr);
}

fs::path named_checkpoint(const fs::path& folder, const std::string& name, const Comm& comm) {
  if (name == "latest") {
    const auto newest = newest_checkpoint(folder, comm);
    if (!newest)
      comm.agree(
          [&] { fail("{}: has no complete checkpoint; train the run first", folder.string()); });
    return *newest;
  }
  const auto step = number_in(name);
  const auto path = step ? checkpoint::folder_of(folder, *step) : folder / name;
  checkpoint::on_root_with_files(comm, [&] {
    if (!step && name != "best")
      fail("there is no checkpoint '{}': give latest, best, or a step number", name);
    if (!fs::is_directory(path))
      fail("{}: there is no such checkpoint{}", path.string(),
           name == "best" ? "; set checkpoint.keep_best in the run file to save one" : "");
    checkpoint::check_whole(path);
  });
  return path;
}

void prune_checkpoints(const fs::path& folder, std::int64_t keep, const Comm& comm) {
  ATTUNE_ASSERT(keep >= 1, "keep = {}", keep);
  checkpoint::on_root_with_files(comm, [&] {
    std::error_code none;
    const auto best = fs::read_symlink(folder / "best", none);
    std::int64_t kept = 0;
    for (const auto& path : checkpoints_in(folder)) {
      if (!fs::exists(path / marker_file)) continue;
      if (++kept > keep && path.filename() != best) remove_checkpoint(path);
    }
  });
}

}  // namespace attune
