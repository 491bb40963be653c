#include "slurm/staging.hpp"

#include <attune/error.hpp>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "parallel/mpi.hpp"
#include "slurm/command.hpp"
#include "slurm/launch.hpp"

namespace attune::slurm {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t piece = 16 << 20;

struct File {
  std::string name;  // relative to what is copied; empty when that is a file itself
  std::uintmax_t size;
};

/// A file alone, or every file of a folder and the folders in it.
std::vector<File> files_of(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder", path.string());
  if (!fs::is_directory(path)) return {{"", fs::file_size(path)}};
  std::vector<File> files;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file())
      files.push_back({fs::relative(entry.path(), path).string(), entry.file_size()});
  return files;
}

std::vector<File> agreed_files(const fs::path& path, const Comm& world) {
  nlohmann::json list = nlohmann::json::array();
  on_root(world, [&] {
    for (const auto& file : files_of(path)) list.push_back({file.name, file.size});
  });
  std::vector<File> files;
  for (const auto& file : nlohmann::json::parse(world.broadcast(list.dump())))
    files.push_back({file[0], file[1]});
  return files;
}

/// One for this node, made by its first rank.
fs::path make_folder(const fs::path& scratch) {
  std::error_code refused;
  fs::create_directories(scratch, refused);
  auto name = (scratch / "attune-XXXXXX").string();
  if (!::mkdtemp(name.data()))
    fail("{} on {}: is not writable ({}); correct 'scratch' in the site file", scratch.string(),
         host_name(), std::strerror(errno));
  return name;
}

void check_space(const fs::path& folder, const std::vector<File>& files) {
  std::uintmax_t needed = 0;
  for (const auto& file : files) needed += file.size;
  const auto free = fs::space(folder).available;
  if (needed + (needed >> 5) > free)
    fail("{} on {}: {} are needed, {} are free; free space, or remove 'stage' from the site file",
         folder.parent_path().string(), host_name(), human_bytes(static_cast<double>(needed)),
         human_bytes(static_cast<double>(free)));
}

}  // namespace

Staging::Staging(const config::RunConfig& config, const Mesh& mesh) : config_(config) {
  const fs::path scratch = environment_variable("ATTUNE_SCRATCH");
  const auto what = pieces_of(environment_variable("ATTUNE_STAGE"), ',');
  const auto is_wanted = [&](const char* name) {
    return std::find(what.begin(), what.end(), name) != what.end();
  };
  if (scratch.empty() || (!is_wanted("data") && !is_wanted("model"))) return;
  mine_ = mesh.node.root();
  try {
    mesh.world.agree([&] {
      if (mine_) folder_ = make_folder(scratch);
    });
    folder_ = mesh.node.broadcast(folder_.string());
    if (is_wanted("data")) config_.dataset.path = copy(config_.dataset.path, "data", mesh.world);
    if (is_wanted("model")) config_.model.path = copy(config_.model.path, "model", mesh.world);
  } catch (...) {
    remove();
    throw;
  }
}

std::string Staging::copy(const fs::path& from, const std::string& name, const Comm& world) const {
  const auto files = agreed_files(from, world);
  world.agree([&] {
    if (mine_) check_space(folder_, files);
  });
  const auto to = folder_ / name / from.filename();
  std::vector<char> buffer(piece);
  for (const auto& file : files) {
    const auto source = file.name.empty() ? from : from / file.name;
    const auto target = file.name.empty() ? to : to / file.name;
    std::ifstream in;
    std::ofstream out;
    if (world.root()) in.open(source, std::ios::binary);
    if (mine_) {
      fs::create_directories(target.parent_path());
      out.open(target, std::ios::binary);
    }
    for (std::uintmax_t done = 0; done < file.size; done += piece) {
      const auto count = std::min<std::uintmax_t>(piece, file.size - done);
      if (world.root()) in.read(buffer.data(), static_cast<std::streamsize>(count));
      world.broadcast(buffer.data(), count);
      if (mine_) out.write(buffer.data(), static_cast<std::streamsize>(count));
    }
    world.agree([&] {
      out.flush();
      if (world.root() && file.size > 0 && !in)
        fail("{}: cannot be read completely: copy it again, or check its disk", source.string());
      if (mine_ && !out)
        fail("{} on {}: cannot be written; check for a full disk", target.string(), host_name());
    });
  }
  return to.string();
}

void Staging::remove() {
  std::error_code ignored;
  if (mine_) fs::remove_all(folder_, ignored);
}

}  // namespace attune::slurm
