// Checkpoints: bit for bit, whole or not at all. On 2 and 4 ranks every call is made by all of
// them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/writer.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "hdf5/hdf5.hpp"
#include "loaded.hpp"
#include "parallel/mpi.hpp"

namespace {

namespace fs = std::filesystem;
using attune::Comm;
using attune::Error;
using attune::Snapshot;
using testing::HasSubstr;

const Comm& all() {
  static const Comm comm = attune::world();
  return comm;
}

/// A fresh "checkpoints" folder, the same for all ranks.
class Checkpoints : public testing::Test {
 protected:
  void SetUp() override {
    std::string root;
    if (all().root()) {
      std::string pattern = (fs::temp_directory_path() / "attune-checkpoint-XXXXXX").string();
      root = ::mkdtemp(pattern.data());
    }
    root_ = all().broadcast(root);
    folder_ = root_ / "run" / "checkpoints";
  }
  void TearDown() override {
    all().barrier();
    if (all().root()) fs::remove_all(root_);
  }

  fs::path step(const std::string& name) const { return folder_ / name; }
  /// On rank 0; all ranks wait until it is done.
  static void damage(const std::function<void()>& how) { attune::on_root(all(), how); }
  std::optional<fs::path> newest() { return attune::newest_checkpoint(folder_, all(), warnings_); }
  /// What was warned of, on all ranks.
  std::string warned() const { return all().broadcast(warnings_.str()); }

  fs::path root_;
  fs::path folder_;
  std::ostringstream warnings_;
};

Snapshot example() {
  at::manual_seed(11);
  Snapshot snapshot;
  auto odd = at::randn({7, 5});
  odd.view(-1)[3] = std::numeric_limits<float>::quiet_NaN();
  odd.view(-1)[4] = -0.0f;
  odd.view(-1)[5] = std::numeric_limits<float>::denorm_min();
  snapshot.tensors = {
      {"weights/model.layers.0.q_proj.lora_A", odd},
      {"transposed", at::randn({4, 6}, at::kDouble).t()},
      {"bf16", at::randn({3, 2, 2}).to(at::kBFloat16)},
      {"half", at::randn({9}).to(at::kHalf)},
      {"ids", at::tensor({std::numeric_limits<std::int64_t>::min(), std::int64_t{-1},
                          std::numeric_limits<std::int64_t>::max()})},
      {"generator", at::randint(0, 256, {5056}, at::kByte)},
      {"scalar", at::scalar_tensor(0.1, at::kDouble)},
      {"empty", at::empty({0, 4})},
      {"large", at::randn({300, 1000})}};
  snapshot.texts = {{"early_stopping", "best=1.25\npatience=2"},
                    {"empty", ""},
                    {"bytes", std::string("a\0b\xff", 4)}};
  snapshot.numbers = {{"step", 25}, {"smallest", std::numeric_limits<std::int64_t>::min()}};
  return snapshot;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const auto x = a.contiguous();
  const auto y = b.contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         (x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0);
}

void save(const fs::path& folder, std::int64_t step, const Snapshot& snapshot, const Comm& comm,
          bool staged = false, bool best = false) {
  attune::CheckpointWriter writer(folder, comm);
  writer.begin(step, snapshot, staged);
  writer.publish(best);
}

std::string refusal(const fs::path& path) {
  try {
    attune::load_checkpoint(path, all());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_F(Checkpoints, ComeBackBitForBitOnEveryRank) {
  const auto saved = example();
  save(folder_, 25, saved, all());
  const auto loaded = attune::load_checkpoint(step("step-000025"), all());

  ASSERT_EQ(loaded.tensors.size(), saved.tensors.size());
  for (std::size_t i = 0; i < saved.tensors.size(); ++i) {
    EXPECT_EQ(loaded.tensors[i].name, saved.tensors[i].name);
    EXPECT_TRUE(same_bits(loaded.tensors[i].tensor, saved.tensors[i].tensor))
        << saved.tensors[i].name;
  }
  EXPECT_EQ(loaded.texts, saved.texts);
  EXPECT_EQ(loaded.numbers, saved.numbers);
}

TEST_F(Checkpoints, OfAnEmptySnapshotComeBackEmpty) {
  save(folder_, 0, {}, all());
  const auto loaded = attune::load_checkpoint(step("step-000000"), all());
  EXPECT_TRUE(loaded.tensors.empty() && loaded.texts.empty() && loaded.numbers.empty());
}

/// A forged marker that takes a part of another step for one of this step.
TEST_F(Checkpoints, OfPartsOfSeveralStepsAreRefused) {
  save(folder_, 1, example(), all());
  save(folder_, 2, example(), all());
  damage([&] {
    const auto own = step("step-000002");
    auto marker = nlohmann::json::parse(attune::read_text(own / "COMPLETE"));
    const auto other =
        nlohmann::json::parse(attune::read_text(step("step-000001") / "COMPLETE"))["parts"][0];
    const auto added = marker["parts"].size() > 1;
    const std::string name = added ? marker["parts"][0]["file"] : "state-0001-00.h5";
    fs::copy_file(step("step-000001") / other["file"].get<std::string>(), own / name,
                  fs::copy_options::overwrite_existing);
    auto part = other;
    part["file"] = name;
    if (added)
      marker["parts"][0] = part;
    else
      marker["parts"].push_back(part);
    attune::write_text(own / "COMPLETE", marker.dump());
  });
  EXPECT_THAT(refusal(step("step-000002")), HasSubstr("has parts of steps 1 and 2"));
}

TEST_F(Checkpoints, LeaveNothingElseInTheFolder) {
  save(folder_, 25, example(), all());
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder_))
    names.push_back(entry.path().lexically_relative(folder_).string());
  std::vector<std::string> expected{"latest", "step-000025", "step-000025/COMPLETE"};
  for (int rank = 0; rank < all().size(); ++rank)
    expected.push_back(fmt::format("step-000025/state-{:04}-00.h5", rank));
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(expected));
}

Snapshot numbered(std::int64_t n) { return {.tensors = {}, .texts = {}, .numbers = {{"n", n}}}; }

TEST_F(Checkpoints, ThatAreWholeAreNeverOverwritten) {
  save(folder_, 25, numbered(1), all());
  EXPECT_THROW(save(folder_, 25, numbered(2), all()), attune::Fault);
  EXPECT_EQ(attune::load_checkpoint(step("step-000025"), all()).numbers.at("n"), 1);
}

TEST_F(Checkpoints, ThatAreDamagedMakeRoomForANewOneOfTheirStep) {
  save(folder_, 25, numbered(1), all());
  damage([&] { fs::remove(step("step-000025") / "COMPLETE"); });
  save(folder_, 25, numbered(2), all());
  EXPECT_EQ(attune::load_checkpoint(step("step-000025"), all()).numbers.at("n"), 2);
}

TEST_F(Checkpoints, HoldWhatWasThereWhenTheyWereBegunWhateverTheTrainingDoesMeanwhile) {
  auto weights = at::randn({500, 1000});
  const auto then = weights.clone();
  attune::CheckpointWriter writer(folder_, all());
  for (const std::int64_t number : {1, 2}) {  // the second uses the buffers of the first
    weights.copy_(then * number);
    writer.begin(number, {.tensors = {{"w", weights}}, .texts = {}, .numbers = {}},
                 /*staged=*/true);
    weights.zero_();
    EXPECT_TRUE(writer.in_flight());
    writer.publish(/*best=*/false);
    EXPECT_FALSE(writer.in_flight());
    EXPECT_TRUE(same_bits(attune::load_checkpoint(step(fmt::format("step-{:06}", number)), all())
                              .tensors.at(0)
                              .tensor,
                          then * number));
  }
}

TEST_F(Checkpoints, ThatWereBegunAndNeverPublishedAreNotThere) {
  save(folder_, 1, example(), all());
  {
    attune::CheckpointWriter writer(folder_, all());
    writer.begin(2, example(), /*staged=*/true);
  }
  EXPECT_EQ(newest(), step("step-000001"));
  EXPECT_EQ(warned(), "");
}

TEST_F(Checkpoints, AreSharedAmongTheRanksThatWriteThem) {
  Snapshot snapshot;
  for (int i = 0; i < 8; ++i)
    snapshot.tensors.emplace_back(fmt::format("w{}", i), at::randn({64, 1024}));
  save(folder_, 1, snapshot, all());
  for (int rank = 0; rank < all().size(); ++rank) {
    const auto bytes = static_cast<double>(
        fs::file_size(step("step-000001") / fmt::format("state-{:04}-00.h5", rank)));
    EXPECT_NEAR(bytes, 8.0 * 64 * 1024 * 4 / all().size(), 40000) << rank;
  }
}

TEST_F(Checkpoints, AreInPartsThatHoldLittleBesideTheState) {
  // tensors of one chunk and a bit: chunks of a fixed size would hold half as much again
  Snapshot snapshot;
  for (int i = 0; i < 40; ++i)
    snapshot.tensors.emplace_back(fmt::format("w{}", i), at::randn({700, 600}));
  snapshot.tensors.emplace_back("e", at::randn({31000, 512}));
  save(folder_, 1, snapshot, all());
  std::uintmax_t bytes = 0;
  std::uintmax_t largest = 0;
  for (const auto& file : fs::directory_iterator(step("step-000001"))) {
    bytes += file.file_size();
    largest = std::max(largest, file.file_size());
  }
  EXPECT_LT(static_cast<double>(bytes), 1.01 * static_cast<double>(snapshot.bytes()));
  EXPECT_LT(largest, std::uintmax_t{66} << 20);  // the one tensor of 64 MB
}

TEST_F(Checkpoints, TheBestOneIsLinkedAndStaysWhenOthersGo) {
  for (const std::int64_t number : {1, 2, 3, 4})
    save(folder_, number, numbered(number), all(), false, number == 2);
  attune::prune_checkpoints(folder_, 1, all());
  EXPECT_EQ(attune::load_checkpoint(attune::named_checkpoint(folder_, "best", all()), all())
                .numbers.at("n"),
            2);
  EXPECT_EQ(attune::named_checkpoint(folder_, "latest", all()), step("step-000004"));
  EXPECT_EQ(attune::named_checkpoint(folder_, "2", all()), step("step-000002"));
  EXPECT_FALSE(fs::exists(step("step-000001")) || fs::exists(step("step-000003")));
  for (const auto* absent : {"3", "worst"})
    EXPECT_THROW(attune::named_checkpoint(folder_, absent, all()), Error) << absent;
}

TEST_F(Checkpoints, TheNewestIsTheOneOfTheHighestStep) {
  for (const std::int64_t number : {5, 1000000, 25}) save(folder_, number, {}, all());
  EXPECT_EQ(newest(), step("step-1000000"));
  EXPECT_EQ(warned(), "");
}

TEST_F(Checkpoints, ThereIsNoNewestWhereThereIsNone) { EXPECT_EQ(newest(), std::nullopt); }

TEST_F(Checkpoints, HalfWrittenAndDamagedOnesAreNamedAndPassedOver) {
  for (const std::int64_t number : {10, 20, 30, 40, 50}) save(folder_, number, example(), all());
  damage([&] {
    // the save was interrupted
    fs::remove(step("step-000050") / "COMPLETE");
    // truncated
    fs::resize_file(step("step-000040") / "state-0000-00.h5", 1000);
    // bits
    std::fstream(step("step-000030") / "state-0000-00.h5",
                 std::ios::in | std::ios::out | std::ios::binary)
        .seekp(5000)
        .put('!')
        .put('?');
    // marker
    std::ofstream(step("step-000020") / "COMPLETE") << "{";
  });
  EXPECT_EQ(newest(), step("step-000010"));
  for (const auto* name : {"step-000050", "step-000040", "step-000030", "step-000020"})
    EXPECT_THAT(warned(), HasSubstr(name));
  EXPECT_THAT(warned(), HasSubstr("is incomplete"));
  EXPECT_THAT(warned(), HasSubstr("has 1000 bytes"));
  EXPECT_THAT(warned(), HasSubstr("sha256"));
}

TEST_F(Checkpoints, DamagedOnesAreRefusedOnAllRanks) {
  save(folder_, 10, example(), all());
  damage([&] { fs::resize_file(step("step-000010") / "state-0000-00.h5", 2000); });
  EXPECT_THAT(refusal(step("step-000010")), HasSubstr("has 2000 bytes"));
  EXPECT_THAT(refusal(step("step-000011")), HasSubstr("step-000011"));
}

/// A marker that fits whatever the parts are now, as a forger would write it.
void forge_marker(const fs::path& checkpoint) {
  std::string parts;
  for (int i = 0; fs::exists(checkpoint / fmt::format("state-{:04}-00.h5", i)); ++i) {
    const auto part = checkpoint / fmt::format("state-{:04}-00.h5", i);
    parts +=
        fmt::format(R"({}{{"file": "{}", "bytes": {}, "sha256": "{}"}})", i ? ", " : "",
                    part.filename().string(), fs::file_size(part), attune::sha256_of_file(part));
  }
  attune::write_text(checkpoint / "COMPLETE",
                     fmt::format(R"({{"version": 2, "parts": [{}]}})", parts));
}

TEST_F(Checkpoints, ForgedShapesAreRefusedBeforeAnythingIsAllocated) {
  save(folder_, 10, {}, all());
  damage([&] {
    {
      const auto root = attune::hdf5::change_file(step("step-000010") / "state-0000-00.h5");
      // 4 TiB that were never written: HDF5 allocates no chunk for them.
      root.group("tensors")
          .create_dataset("000000", at::kFloat, {std::int64_t{1} << 40})
          .attributes()
          .set("name", "w");
    }
    forge_marker(step("step-000010"));
  });
  EXPECT_THAT(refusal(step("step-000010")), HasSubstr("tensors/000000"));
}

TEST_F(Checkpoints, FilesOfAnotherKindOrVersionAreRefused) {
  save(folder_, 10, {}, all());
  save(folder_, 20, {}, all());
  save(folder_, 30, {}, all());
  damage([&] {
    attune::hdf5::change_file(step("step-000010") / "state-0000-00.h5")
        .attributes()
        .set("version", std::int64_t{3});
    attune::hdf5::change_file(step("step-000020") / "state-0000-00.h5")
        .attributes()
        .set("format", "attune-dataset");
    attune::write_text(step("step-000030") / "state-0000-00.h5", "not HDF5 at all");
    for (const auto* name : {"step-000010", "step-000020", "step-000030"}) forge_marker(step(name));
  });
  EXPECT_THAT(refusal(step("step-000010")), HasSubstr("version 3"));
  EXPECT_THAT(refusal(step("step-000020")), HasSubstr("not a checkpoint of Attune"));
  EXPECT_THAT(refusal(step("step-000030")), HasSubstr("state-0000-00.h5"));
}

/// Valid HDF5 whose content no save would write.
TEST_F(Checkpoints, ForgedContentIsRefused) {
  const std::vector<std::function<void(const attune::hdf5::Group&)>> forgeries{
      // without a name
      [](const auto& root) { root.group("tensors").write("000000", at::zeros({2})); },
      [](const auto& root) {
        root.group("texts")
            .create_dataset("000000", at::kByte, {std::int64_t{1} << 40})
            .attributes()
            .set("name", "t");
      },
      [](const auto& root) {
        root.group("texts")
            .create_dataset("000000", at::kFloat, {2, 2})
            .attributes()
            .set("name", "t");
      },
      [](const auto& root) {
        root.group("numbers")
            .create_dataset("000000", at::kLong, {1 << 20})
            .attributes()
            .set("name", "n");
      },
      [](const auto& root) { root.group("numbers").create_group("000000"); },
      [](const auto& root) { root.group("tensors").create_group("000000"); },
      [](const auto& root) {
        root.group("tensors").create_dataset("000000", at::kFloat,
                                             {std::int64_t{1} << 31, std::int64_t{1} << 31});
      },
  };
  for (std::size_t i = 0; i < forgeries.size(); ++i) {
    const auto number = static_cast<std::int64_t>(i);
    save(folder_, number, {}, all());
    const auto path = step(fmt::format("step-{:06}", number));
    damage([&] {
      try {
        forgeries[i](attune::hdf5::change_file(path / "state-0000-00.h5"));
      } catch (const Error&) {  // what HDF5 itself does not let one write
      }
      forge_marker(path);
    });
    if (i + 1 < forgeries.size()) {
      EXPECT_THAT(refusal(path), HasSubstr("state-0000-00.h5")) << i;
    }
  }
}

TEST_F(Checkpoints, OfAnyDamagedBytesAreRefusedOrReadButNeverCrash) {
  if (all().size() > 1) return;  // one process is enough
  save(folder_, 1, example(), all());
  const auto whole = attune::read_text(step("step-000001") / "state-0000-00.h5");
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    auto text = whole;
    const bool header = round % 2;  // metadata lie at the front
    for (int n = 0; n < 4; ++n)
      text[random() % (header ? std::min<std::size_t>(text.size(), 20000) : text.size())] =
          static_cast<char>(random());
    std::ofstream(step("step-000001") / "state-0000-00.h5", std::ios::binary) << text;
    forge_marker(step("step-000001"));
    refusal(step("step-000001"));
  }
}

TEST_F(Checkpoints, PruningKeepsTheNewest) {
  for (const std::int64_t number : {5, 10, 15, 20}) save(folder_, number, {}, all());
  attune::prune_checkpoints(folder_, 2, all());
  EXPECT_FALSE(fs::exists(step("step-000010")));
  EXPECT_TRUE(fs::exists(step("step-000015")));
  // and the link
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 3);
}

TEST_F(Checkpoints, PruningDoesNotCountOnesThatWereNotSavedToTheEnd) {
  for (const std::int64_t number : {5, 10, 15}) save(folder_, number, {}, all());
  damage([&] { fs::remove(step("step-000015") / "COMPLETE"); });
  attune::prune_checkpoints(folder_, 1, all());
  EXPECT_EQ(newest(), step("step-000010"));
  EXPECT_FALSE(fs::exists(step("step-000005")));
}

TEST_F(Checkpoints, LeftoversOfAnInterruptedSaveAreRemovedByTheNext) {
  damage([&] {
    fs::create_directories(folder_ / ".step-000025.new.123.tmp");
    std::ofstream(folder_ / ".step-000025.new.123.tmp" / "state-0000-00.h5") << "half";
  });
  EXPECT_EQ(newest(), std::nullopt);
  save(folder_, 50, {}, all());
  EXPECT_FALSE(fs::exists(folder_ / ".step-000025.new.123.tmp"));
}

TEST_F(Checkpoints, ThatCannotBeWrittenAreAnErrorOnAllRanks) {
  damage([&] {
    fs::create_directories(root_ / "run");
    std::ofstream(folder_) << "a file where the folder should be";
  });
  EXPECT_THROW(save(folder_, 1, {}, all()), Error);
}

}  // namespace
