#include "train/hidden_cache.hpp"

#include <attune/error.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/stopwatch.hpp"
#include "data/loader.hpp"
#include "evaluate/evaluate.hpp"
#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"
#include "parallel/watchdog.hpp"
#include "train/passes.hpp"
#include "train/schedule.hpp"
#include "device/device.hpp"

namespace attune::train {
namespace {

/// Neighbouring rows computed together: a function of the data alone, so that the states' bits do
/// not depend on the ranks.
struct Piece {
  std::int64_t first;
  std::int64_t end;
};

std::vector<Piece> pieces_of(const std::vector<std::int64_t>& lengths) {
  constexpr std::int64_t most_rows = 64;
  constexpr std::int64_t most_tokens = 2048;
  std::vector<Piece> pieces;
  std::int64_t tokens = 0;
  for (std::int64_t row = 0; row < std::ssize(lengths); ++row) {
    const auto length = lengths[static_cast<std::size_t>(row)];
    if (pieces.empty() || row - pieces.back().first == most_rows || tokens + length > most_tokens) {
      pieces.push_back({row, row});
      tokens = 0;
    }
    pieces.back().end = row + 1;
    tokens += length;
  }
  return pieces;
}

struct States {
  at::Tensor hidden;     // [positions, item...], on the CPU
  at::Tensor positions;  // int64 [rows]
};

class HiddenCache {
 public:
  HiddenCache(Session& session, const std::vector<NamedTensor>& trained)
      : s_(session),
        train_(session.data->split("train")),
        dtype_(session.config.train.prefix_cache == config::HiddenCache::bfloat16 ? at::kBFloat16
                                                                                  : at::kFloat),
        parts_(frozen_parts(session, trained)),
        key_(key()),
        path_(folder() / fmt::format("{}.h5", key_.substr(0, 16))) {}

  std::shared_ptr<const HiddenStates> kept(Interruption& interruption) {
    s_.mesh.world.agree([&] {
      if (parts_ == 0)
        fail(
            "train.prefix_cache stores the output of the frozen blocks below the first trainable "
            "layer, but the first block is trainable: set it to \"off\", or train only the upper "
            "blocks");
    });
    auto states = open();
    if (!states) {
      if (!fill(interruption)) return nullptr;
      states = open();
      ATTUNE_ASSERT(states, "{} does not exist after it was written", path_.string());
    }
    return states;
  }

 private:
  std::filesystem::path folder() const {
    const auto& given = s_.config.train.prefix_folder;
    return given.empty() ? std::filesystem::path(s_.config.run.output) / ".prefix"
                         : std::filesystem::path(given);
  }

  /// Everything that the states depend on.
  std::string key() {
    identify_base(s_);
    nlohmann::json all{{"base", s_.base_sha256},
                       {"data", train_.sha256()},
                       {"parts", parts_},
                       {"dtype", c10::toString(dtype_)},
                       {"precision", s_.config.train.precision},
                       {"device", device::name(s_.device.type())}};
    for (const auto& [section, settings] : s_.config.effective) {
      if (section != "model" && section != "dataset" && section != "strategy" &&
          section != "[strategy]")
        continue;
      for (const auto& setting : settings)
        if (setting.role != OptionRole::location)
          all["settings"].push_back({section, setting.name, setting.value});
    }
    return sha256(all.dump());
  }

  /// Null unless every rank finds it.
  std::shared_ptr<const HiddenStates> open() {
    std::shared_ptr<const HiddenStates> states;
    s_.mesh.world.agree([&] {
      states = HiddenStates::open(path_, key_, {s_.model.get(), parts_});
      if (states && states->rows() != train_.size()) states = nullptr;
    });
    return s_.mesh.world.sum(static_cast<std::int64_t>(states == nullptr)) == 0 ? states : nullptr;
  }

  /// Rank 0, and on every node whose folder is its own, the first rank there.
  bool writes() {
    const bool first_of_node = s_.mesh.node.root();
    const auto probe = folder() / fmt::format(".{}", key_.substr(0, 16));
    s_.mesh.world.agree([&] {
      if (first_of_node) std::filesystem::create_directories(folder());
      if (s_.mesh.world.root() && !std::ofstream(probe))
        fail("{}: is not writable; set train.prefix_folder to a writable folder",
             folder().string());
    });
    const bool sees_roots = std::filesystem::exists(probe);
    s_.mesh.world.barrier();
    if (s_.mesh.world.root()) std::filesystem::remove(probe);
    return s_.mesh.world.root() || (first_of_node && !sees_roots);
  }

  /// False when it was interrupted.
  bool fill(Interruption& interruption) {
    const Stopwatch watch;
    const auto& data = s_.mesh.data;
    const auto pieces = pieces_of(sample_lengths(train_));
    const bool is_writer = writes();
    std::unique_ptr<HiddenWriter> writer;
    say(fmt::format("computing what {} make of {} samples, to be kept in {}",
                    describe_parts(parts_, *s_.model), train_.size(), path_.string()));
    s_.mesh.world.agree([&] { check_repeatable(pieces.front()); });
    for (std::size_t round = 0; round < pieces.size();
         round += static_cast<std::size_t>(data.size())) {
      parallel::report_phase("prefix", static_cast<std::int64_t>(round));
      States mine;
      s_.mesh.world.agree([&] {
        if (const auto own = round + static_cast<std::size_t>(data.rank()); own < pieces.size())
          mine = compute(pieces[own]);
      });
      for (int rank = 0;
           rank < data.size() && round + static_cast<std::size_t>(rank) < pieces.size(); ++rank) {
        const auto hidden = parallel::broadcast_tensor(mine.hidden, data, rank);
        const auto positions = parallel::broadcast_tensor(mine.positions, data, rank);
        s_.mesh.world.agree([&] {
          if (!is_writer) return;
          if (!writer) {
            check_room(hidden, pieces.front());
            writer = std::make_unique<HiddenWriter>(path_, key_, hidden);
          }
          writer->append(hidden, {positions.data_ptr<std::int64_t>(),
                                  static_cast<std::size_t>(positions.numel())});
        });
      }
      if (interruption.agree()) return false;
    }
    s_.mesh.world.agree([&] {
      if (writer) writer->finish();
    });
    if (s_.mesh.world.root())
      say(fmt::format("kept {} in {:.0f} s",
                      human_bytes(static_cast<double>(std::filesystem::file_size(path_))),
                      watch.seconds()));
    return true;
  }

  ForwardContext pass_of(const Piece& piece) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(piece.end - piece.first));
    std::iota(rows.begin(), rows.end(), piece.first);
    const auto samples = train_.read(rows);
    for (std::size_t i = 0; i < rows.size(); ++i) check_unchanged(samples[i], rows[i]);
    auto batch = collate(*s_.dataset, samples, rows);
    move_to(batch, s_.device);
    return {std::move(batch), Phase::training};
  }

  void check_unchanged(const Sample& sample, std::int64_t row) const {
    const auto seen = s_.dataset->augment(sample, mixed({1, static_cast<std::uint64_t>(row)}));
    for (const auto& [name, column] : sample)
      if (!at::equal(seen.at(name), column))
        fail(
            "train.prefix_cache cannot store randomly augmented samples: set it to \"off\", or "
            "disable the augmentation in [dataset]");
  }

  at::Tensor hidden_of(const ForwardContext& context) {
    const torch::NoGradGuard no_grad;
    return s_.model->hidden_after(parts_, context);
  }

  States compute(const Piece& piece) {
    const auto context = pass_of(piece);
    const auto& batch = context.batch();
    const at::Tensor hidden = hidden_of(context).to(dtype_).cpu();
    // A state for every position of the samples, or as many for each sample: one, where they are
    // features.
    const auto rows = std::ssize(batch.ids);
    const auto samples_each = batch.samples() / rows;
    const bool by_position = hidden.size(0) == batch.length();
    std::vector<std::int64_t> positions;
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto first = static_cast<std::size_t>(row * samples_each);
      const auto end = static_cast<std::size_t>((row + 1) * samples_each);
      positions.push_back(by_position ? batch.starts[end] - batch.starts[first]
                                      : hidden.size(0) / rows);
    }
    return {hidden, at::tensor(positions)};
  }

  /// With two seeds, and without dropout.
  void check_repeatable(const Piece& piece) {
    const auto batch = pass_of(piece).batch();
    const auto computed = [&](std::uint64_t seed) {
      torch::manual_seed(seed);
      return hidden_of({batch, Phase::training, {seed, 0}});
    };
    const at::Tensor without = hidden_of(batch);
    const auto like_it = [&](const at::Tensor& hidden) {
      return (hidden - without).abs().max().item<double>() <=
             1e-4 * without.abs().max().item<double>();
    };
    if (!like_it(computed(1)) || !like_it(computed(2)))
      fail(
          "train.prefix_cache cannot store random outputs: set it to \"off\", or set dropout to 0 "
          "in [model] and remove strategies that add noise");
  }

  void check_room(const at::Tensor& states, const Piece& piece) const {
    const auto lengths = sample_lengths(train_);
    const double share = std::accumulate(lengths.begin(), lengths.begin() + piece.end, 0.0) /
                         std::accumulate(lengths.begin(), lengths.end(), 0.0);
    const double needed = static_cast<double>(states.nbytes()) / share;
    const double free = static_cast<double>(std::filesystem::space(folder()).available);
    if (needed > free)
      fail(
          "train.prefix_cache needs {} in {}, but {} are free: set train.prefix_folder to another "
          "disk, or train.prefix_cache to \"{}\"",
          human_bytes(needed), folder().string(), human_bytes(free),
          dtype_ == at::kFloat ? "bfloat16" : "off");
  }

  void say(const std::string& text) const {
    if (s_.mesh.world.root()) fmt::print(stderr, "{}\n", text);
  }

  Session& s_;
  const Split& train_;
  at::ScalarType dtype_;
  std::int64_t parts_;
  std::string key_;
  std::filesystem::path path_;
};

}  // namespace

std::int64_t frozen_parts(const Session& session, const std::vector<NamedTensor>& trained) {
  std::vector<bool> trained_now;
  for (const auto& [name, parameter] : trained) trained_now.push_back(parameter.requires_grad());
  for (const auto& [name, parameter] : trained) parameter.requires_grad_(true);
  const std::int64_t first = 0;
  const auto parts = session.model->frozen_parts(training_pass(
      session, load_batch(session.data->split("train"), *session.dataset, {&first, 1}), 0));
  for (std::size_t i = 0; i < trained.size(); ++i) trained[i].second.requires_grad_(trained_now[i]);
  return parts;
}

std::string describe_parts(std::int64_t parts, const Model& model) {
  const auto depth = model.spec().depth;
  return parts > depth ? "all blocks" : fmt::format("the first {} of {} blocks", parts, depth);
}

bool sees_again(const Session& session) {
  const auto samples = session.data->split("train").size();
  return steps_of(session.config.train, samples) * session.config.train.global_batch > samples;
}

std::shared_ptr<const HiddenStates> keep_hidden_states(Session& session,
                                                       const std::vector<NamedTensor>& trained,
                                                       Interruption& interruption) {
  if (session.config.train.prefix_cache == config::HiddenCache::off) return nullptr;
  if (!sees_again(session)) {
    if (session.mesh.world.root())
      fmt::print(stderr, "train.prefix_cache: no sample is used twice, so nothing is cached\n");
    return nullptr;
  }
  return HiddenCache(session, trained).kept(interruption);
}

}  // namespace attune::train
