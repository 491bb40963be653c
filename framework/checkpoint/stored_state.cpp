#include "checkpoint/stored_state.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "checkpoint/folder.hpp"
#include "checkpoint/state_file.hpp"
#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"

namespace attune {
namespace fs = std::filesystem;
namespace {

using checkpoint::StateFile;
using nlohmann::json;
using parallel::Shard;

/// What is in a part, without the values of tensors. CBOR, because texts may be any bytes.
std::string contents_of(const StateFile& file) {
  auto pieces = json::array();
  for (const auto& piece : file.pieces())
    pieces.push_back({piece.name, piece.shape, piece.offset, piece.tensor.sizes().vec(),
                      static_cast<int>(piece.tensor.scalar_type())});
  std::string bytes;
  json::to_cbor(json{pieces, file.texts(), file.numbers(), file.step()}, bytes);
  return bytes;
}

Shard piece_from(const json& item) {
  const auto options =
      at::TensorOptions(static_cast<at::ScalarType>(item[4].get<int>())).device(at::kMeta);
  Shard piece(item[0], at::empty(item[3].get<std::vector<std::int64_t>>(), options));
  piece.shape = item[1].get<std::vector<std::int64_t>>();
  piece.offset = item[2];
  return piece;
}

bool are_alike(const std::vector<Shard>& ours, const std::vector<Shard>& theirs) {
  return std::ranges::equal(ours, theirs, [](const Shard& a, const Shard& b) {
    return a.name == b.name && a.shape == b.shape && a.offset == b.offset &&
           a.tensor.sizes() == b.tensor.sizes();
  });
}

}  // namespace

StoredState::StoredState(fs::path path, Comm comm)
    : path_(std::move(path)), comm_(std::move(comm)) {
  std::vector<checkpoint::Part> parts;
  std::vector<std::string> contents;
  comm_.agree([&] {
    checkpoint::with_files([&] {
      parts = checkpoint::read_marker(path_);
      contents.resize(parts.size());
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if (reader(i) != comm_.rank()) continue;
        checkpoint::check_part(path_, parts[i]);
        contents[i] = contents_of(StateFile(path_ / parts[i].file));
      }
    });
  });
  std::set<std::int64_t> steps;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto all = json::from_cbor(comm_.broadcast(contents[i], reader(i)));
    auto& part = parts_.emplace_back(Part{parts[i].file, {}});
    for (const auto& item : all[0]) part.pieces.push_back(piece_from(item));
    texts_.merge(all[1].get<std::map<std::string, std::string>>());
    numbers_.merge(all[2].get<std::map<std::string, std::int64_t>>());
    steps.insert(all[3].get<std::int64_t>());
  }
  comm_.agree([&] {
    if (steps.size() > 1)
      fail("{}: has parts of steps {} and {}; remove it, or resume from another", path_.string(),
           *steps.begin(), *steps.rbegin());
    check_complete();
  });
}

void StoredState::check_complete() {
  std::vector<Shard> all;
  for (const auto& part : parts_) all.insert(all.end(), part.pieces.begin(), part.pieces.end());
  try {
    for (const auto& [name, tensor] : parallel::put_together(all)) tensors_[name] = tensor;
  } catch (const Error& error) {
    fail("{}: is damaged ({}); remove it, or resume from another", path_.string(), error.what());
  }
}

void StoredState::read(const std::function<bool(const std::string&)>& is_wanted,
                       const std::function<void(const Shard&)>& use) const {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const auto from = reader(i);
    std::optional<StateFile> file;
    comm_.agree([&] {
      checkpoint::with_files([&] {
        if (from != comm_.rank()) return;
        file.emplace(path_ / parts_[i].file);
        if (!are_alike(file->pieces(), parts_[i].pieces))
          fail("{}: was changed while it was read; resume again",
               (path_ / parts_[i].file).string());
      });
    });
    for (std::size_t k = 0; k < parts_[i].pieces.size(); ++k) {
      auto piece = parts_[i].pieces[k];
      if (!is_wanted(piece.name)) continue;
      at::Tensor values;
      comm_.agree([&] {
        checkpoint::with_files([&] {
          if (file) values = file->read(k);
        });
      });
      piece.tensor = comm_.size() == 1 ? values : parallel::broadcast_tensor(values, comm_, from);
      comm_.agree([&] { use(piece); });
    }
  }
}

}  // namespace attune
