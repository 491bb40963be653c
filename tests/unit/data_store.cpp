// HDF5 and the data file: what is written comes back, and damaged or foreign files are refused.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <attune/error.hpp>
#include <gmock/gmock.h>
#include <hdf5.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "core/files.hpp"
#include "data/card.hpp"
#include "data/store.hpp"

namespace attune {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class Store : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) / ("attune-store-" + std::to_string(::getpid()));
  fs::path path_ = folder_ / "data.h5";
  Store() { fs::create_directories(folder_); }
  ~Store() override { fs::remove_all(folder_); }

  /// Three samples, of 2, 0 and 3 tokens.
  void write_file(
      const std::function<void(const hdf5::Group& root, const hdf5::Group& train)>& change = {}) {
    const auto root = hdf5::create_file(path_);
    root.attributes().set("format", std::string(data_format));
    root.attributes().set("version", data_version);
    const auto train = root.create_group("train");
    train.write("tokens", at::tensor({11, 12, 13, 14, 15}, at::kInt));
    train.write("label", at::tensor({2, 0, 1}, at::kLong));
    train.write("tokens.offsets", at::tensor({0, 2, 2, 5}, at::kLong));
    train.attributes().set("sha256", content_sha256(train));
    if (change) change(root, train);
  }
  std::string refusal() {
    try {
      DataFile::open(path_);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
};

TEST_F(Store, TensorsOfEveryTypeComeBackBitForBit) {
  const auto root = hdf5::create_file(path_);
  for (const auto dtype : {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kFloat,
                           at::kDouble, at::kHalf, at::kBFloat16, at::kBool}) {
    const auto name = std::string(c10::toString(dtype));
    const auto tensor = at::arange(6, at::kFloat).reshape({2, 3}).to(dtype);
    root.write(name, tensor);
    EXPECT_EQ(root.dataset(name).dtype(), dtype);
    EXPECT_TRUE(root.read(name).equal(tensor)) << name;
  }
  root.write("scalar", at::full({}, 3.5f));
  EXPECT_EQ(root.read("scalar").dim(), 0);
  EXPECT_EQ(root.read("scalar").item<float>(), 3.5f);
  root.write("none", at::empty({0, 4}, at::kInt));
  EXPECT_EQ(root.read("none").sizes(), (std::vector<std::int64_t>{0, 4}));
  EXPECT_EQ(root.members().front(), "BFloat16");
}

TEST_F(Store, RowsAreReadAndWrittenInParts) {
  const auto root = hdf5::create_file(path_);
  const auto dataset = root.create_dataset("rows", at::kInt, {5, 2}, 16);
  dataset.write(0, at::zeros({5, 2}, at::kInt));
  dataset.write(3, at::tensor({1, 2, 3, 4}, at::kInt).reshape({2, 2}));
  EXPECT_TRUE(dataset.read(2, 2).equal(at::tensor({0, 0, 1, 2}, at::kInt).reshape({2, 2})));
}

TEST_F(Store, AttributesComeBack) {
  const auto root = hdf5::create_file(path_);
  const auto attributes = root.attributes();
  const std::string long_text(100000, 'x');
  attributes.set("text", long_text);
  attributes.set("texts", std::vector<std::string>{"ä", "", "c"});
  attributes.set("number", 7);
  attributes.set("number", 8);
  EXPECT_EQ(attributes.text("text"), long_text);
  EXPECT_EQ(attributes.texts("texts"), (std::vector<std::string>{"ä", "", "c"}));
  EXPECT_EQ(attributes.integer("number"), 8);
  EXPECT_THROW(attributes.text("absent"), Error);
  EXPECT_THROW(attributes.text("number"), Error);
  EXPECT_THROW(attributes.integer("text"), Error);
}

TEST_F(Store, RowsComeInTheOrderAskedFor) {
  write_file();
  const auto file = DataFile::open(path_);
  const auto& split = file.split("train");
  const std::vector<std::int64_t> rows{2, 0, 1, 2};
  const auto samples = split.read(rows);
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_TRUE(samples[0].at("tokens").equal(at::tensor({13, 14, 15}, at::kInt)));
  EXPECT_TRUE(samples[1].at("tokens").equal(at::tensor({11, 12}, at::kInt)));
  EXPECT_EQ(samples[2].at("tokens").numel(), 0);
  EXPECT_TRUE(samples[3].at("tokens").equal(samples[0].at("tokens")));
  EXPECT_EQ(samples[0].at("label").dim(), 0);
  EXPECT_EQ(samples[0].at("label").item<std::int64_t>(), 1);
  EXPECT_EQ(split.lengths("tokens"), (std::vector<std::int64_t>{2, 0, 3}));
  EXPECT_NO_THROW(split.verify());
  EXPECT_THROW(file.split("test"), Error);
}

TEST_F(Store, FilesOfAnotherFormatOrVersionAreRefused) {
  write_text(path_, "not HDF5 at all");
  EXPECT_THAT(refusal(), HasSubstr("cannot be opened as an HDF5 file"));
  {
    hdf5::create_file(path_).write("x", at::zeros({1}));
  }
  EXPECT_THAT(refusal(), HasSubstr("not a data set that 'attune prepare' made"));
  write_file([](const auto& root, const auto&) { root.attributes().set("version", 9); });
  EXPECT_THAT(refusal(), HasSubstr("format version 9"));
  fs::remove(path_);
  EXPECT_THAT(refusal(), HasSubstr("there is no such file"));
}

TEST_F(Store, ColumnsThatDoNotHoldTogetherAreRefused) {
  write_file([](const auto&, const auto& train) {
    train.dataset("tokens.offsets").write(0, at::tensor({1, 2, 2, 5}, at::kLong));
  });
  EXPECT_THAT(refusal(), HasSubstr("/train/tokens.offsets: offsets must begin at 0"));
  write_file([](const auto&, const auto& train) {
    train.dataset("tokens.offsets").write(0, at::tensor({0, 2, 2, 6}, at::kLong));
  });
  EXPECT_THAT(refusal(), HasSubstr("offsets end at 6 and the column has 5"));
  write_file(
      [](const auto&, const auto& train) { train.write("more", at::zeros({2}, at::kLong)); });
  EXPECT_THAT(refusal(), HasSubstr("/train/more: has 2 samples"));
  write_file([](const auto&, const auto& train) {
    train.write("gone.offsets", at::zeros({2}, at::kLong));
  });
  EXPECT_THAT(refusal(), HasSubstr("offsets for 'gone' but no such column"));
  write_file([](const auto& root, const auto&) { root.create_group("validation"); });
  EXPECT_THAT(refusal(), HasSubstr("/validation: the split has no columns"));
}

TEST_F(Store, OffsetsThatDoNotAscendAreRefusedWhenTheyAreFirstNeeded) {
  write_file([](const auto&, const auto& train) {
    train.dataset("tokens.offsets").write(0, at::tensor({0, 4, 2, 5}, at::kLong));
  });
  const auto file = DataFile::open(path_);
  const std::vector<std::int64_t> rows{1};
  for (int time = 0; time < 2; ++time) try {
      file.split("train").read(rows);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("/train/tokens.offsets: offsets must ascend"));
    }
}

TEST_F(Store, ACardOfColumnsThatAreNotWhatTheirNamesSayIsRefused) {
  const auto refusals =
      [&](const std::function<void(const hdf5::Group& root, const hdf5::Group& train)>& change) {
        write_file([&](const auto& root, const auto& train) {
          for (const char* name :
               {"name", "kind", "licence", "created", "tokenizer_sha256", "rejected"})
            root.attributes().set(name, std::string("{}"));
          for (const char* name : {"sources", "sources_sha256"})
            root.attributes().set(name, std::vector<std::string>{"a"});
          root.attributes().set("labels", std::vector<std::string>{"no", "yes", "perhaps"});
          change(root, train);
        });
        const auto file = DataFile::open(path_);
        std::string texts;
        for (const auto& lines :
             {std::function([&] { return data_card(file); }),
              std::function([&] { return sample_lines(file, [](const auto&) { return ""; }); })})
          try {
            lines();
          } catch (const Error& error) {
            texts += error.what();
          }
        return texts;
      };
  EXPECT_EQ(refusals([](const auto&, const auto&) {}), "");
  EXPECT_THAT(refusals([](const auto& root, const auto&) {
                root.attributes().set("labels", std::vector<std::string>{"no"});
              }),
              HasSubstr("contains the label 2, but the file names 1 labels"));
  EXPECT_THAT(refusals([](const auto&, const auto& train) {
                train.write("loss_mask", at::ones({3}, at::kLong));
              }),
              HasSubstr("/train/loss_mask: has type Long instead of Byte"));
  EXPECT_THAT(refusals([](const auto&, const auto& train) {
                train.write("loss_mask", at::ones({1}, at::kByte));
                train.write("loss_mask.offsets", at::tensor({0, 1, 1, 1}, at::kLong));
              }),
              HasSubstr("/train/loss_mask: a sample has 1 values for 2 tokens"));
  EXPECT_THAT(refusals([](const auto& root, const auto&) {
                root.attributes().set("rejected", std::string(R"({"a": 1})"));
              }),
              HasSubstr("its attribute 'rejected'"));
}

TEST_F(Store, ColumnsSayWhatTheyAre) {
  write_file();
  const auto file = DataFile::open(path_);
  const auto& split = file.split("train");
  EXPECT_TRUE(split.ragged("tokens") && split.holds_tokens("tokens"));
  EXPECT_FALSE(split.ragged("label") || split.holds_tokens("label"));
  EXPECT_FALSE(split.ragged("absent"));
  EXPECT_EQ(split.values("tokens").rows(), 5);
}

TEST_F(Store, AFileOf100MillionTokensOpensInUnder50Milliseconds) {
  constexpr std::int64_t tokens = 100'000'000;
  constexpr std::int64_t length = 125;
  constexpr std::int64_t piece = 5'000'000;
  {
    const auto root = hdf5::create_file(path_);
    root.attributes().set("format", std::string(data_format));
    root.attributes().set("version", data_version);
    const auto train = root.create_group("train");
    const auto column = train.create_dataset("tokens", at::kInt, {tokens});
    for (std::int64_t first = 0; first < tokens; first += piece)
      column.write(first, at::arange(first, first + piece, at::kInt));
    train.write("tokens.offsets", at::arange(0, tokens + 1, length, at::kLong));
  }
  double best = 1e9;
  for (int time = 0; time < 5; ++time) {
    const auto start = std::chrono::steady_clock::now();
    const auto file = DataFile::open(path_);
    best = std::min(
        best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                  .count());
    ASSERT_EQ(file.split("train").size(), tokens / length);
    const std::vector<std::int64_t> last{tokens / length - 1};
    EXPECT_EQ(file.split("train").read(last).front().at("tokens")[-1].item<std::int32_t>(),
              tokens - 1);
  }
  std::printf("opened in %.2f ms\n", best);
  EXPECT_LT(best, 50);
}

TEST_F(Store, AShapeThatTheFileCannotHoldIsRefusedBeforeAllocation) {
  write_file([](const auto&, const auto& train) {
    train.create_dataset("forged", at::kLong, {std::int64_t{1} << 50});
  });
  EXPECT_THAT(refusal(), HasSubstr("samples"));
  const auto root = hdf5::open_file(path_);
  try {
    root.group("train").read("forged");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/train/forged: its shape needs 9007199254740992 bytes"));
  }
}

TEST_F(Store, ADamagedByteIsFoundByItsChecksum) {
  write_file();
  std::string bytes = read_text(path_);
  const std::string tokens("\x0b\0\0\0\x0c\0\0\0\x0d\0\0\0", 12);
  const auto at = bytes.find(tokens);
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  write_text(path_, bytes);
  const auto file = DataFile::open(path_);
  const std::vector<std::int64_t> rows{0};
  try {
    file.split("train").read(rows);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("/train/tokens cannot be read: the checksum of its data is wrong"));
    EXPECT_THAT(error.what(), HasSubstr(path_.string()));
  }
}

TEST_F(Store, ADamagedByteAnywhereIsRefusedOrDoesNoHarm) {
  write_file([](const auto& root, const auto&) {
    root.attributes().set("kind", std::string("classification"));
    root.attributes().set("recipe", std::string(2000, 'r'));
    root.attributes().set("labels", std::vector<std::string>{"a", "bc", ""});
  });
  const std::string whole = read_text(path_);
  std::fstream bytes(path_, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::size_t at, char byte) {
    bytes.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  int refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    put(at, static_cast<char>(whole[at] ^ '\xff'));
    try {
      const auto file = DataFile::open(path_);
      EXPECT_EQ(file.kind() + file.recipe(), "classification" + std::string(2000, 'r')) << at;
      EXPECT_EQ(file.labels(), (std::vector<std::string>{"a", "bc", ""})) << at;
      file.split("train").verify();
    } catch (const Error&) {
      ++refused;
    }
    put(at, whole[at]);
  }
  EXPECT_GT(refused, 2000);
}

TEST_F(Store, TextsOfVariableLengthAreRefused) {
  write_file();
  {
    const hdf5::Handle file(H5Fopen(path_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    const hdf5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Tset_size(type.id(), H5T_VARIABLE);
    H5Adelete(file.id(), "format");
    const hdf5::Handle format(
        H5Acreate2(file.id(), "format", type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    const char* text = data_format;
    ASSERT_GE(H5Awrite(format.id(), type.id(), &text), 0);
  }
  EXPECT_THAT(refusal(), HasSubstr("the attribute 'format' is a variable-length text"));
}

TEST_F(Store, ChangedContentIsFoundByVerify) {
  write_file([](const auto&, const auto& train) {
    train.dataset("label").write(0, at::tensor({0}, at::kLong));
  });
  EXPECT_THROW(DataFile::open(path_).split("train").verify(), Error);
}

}  // namespace
}  // namespace attune
