// The safetensors and GGUF readers, and the safetensors writer.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <random>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "weights/gguf.hpp"
#include "weights/name_map.hpp"
#include "weights/safetensors.hpp"
#include "weights_fixtures.hpp"

namespace {

using namespace attune;
using namespace fixtures;
using testing::HasSubstr;

std::string error_of_safetensors(const std::string& header, const std::string& data) {
  TemporaryFolder folder;
  write_bytes(folder / "x.safetensors", safetensors(header, data));
  return error_of([&] { open_safetensors(folder / "x.safetensors"); });
}

std::string error_of_gguf(const std::string& bytes) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", bytes);
  return error_of([&] { GgufFile file(folder / "x.gguf"); });
}

at::Tensor dequantized(std::uint32_t type, const std::string& block, std::uint64_t values = 32) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", gguf({}, {{"t", {values}, type, block}}));
  return GgufFile(folder / "x.gguf").read("t").clone();
}

std::string half(float value) { return raw(c10::Half(value).x); }

TEST(Safetensors, ComesBackAsItWasWrittenInEveryType) {
  TemporaryFolder folder;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto type : {at::kBool, at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                          at::kInt, at::kShort, at::kChar, at::kByte})
    tensors.emplace_back(at::toString(type), at::arange(15).reshape({3, 5}).remainder(2).to(type));
  tensors.emplace_back("scalar", at::tensor(2.5));
  tensors.emplace_back("empty", at::empty({0, 4}));
  tensors.emplace_back("transposed", at::arange(6.0).reshape({2, 3}).t());

  write_safetensors(folder / "all.safetensors", tensors, {{"made_by", "test"}});

  const auto source = open_safetensors(folder / "all.safetensors");
  EXPECT_EQ(source->tensors().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const auto read = source->read(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read, tensor)) << name;
  }
}

TEST(Safetensors, TensorsOutliveTheSourceAndWritingToThemLeavesTheFileAlone) {
  TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"a", at::ones({4})}});

  auto tensor = open_safetensors(folder / "x.safetensors")->read("a");
  tensor.add_(1);

  EXPECT_TRUE(at::equal(tensor, at::full({4}, 2.0f)));
  EXPECT_TRUE(at::equal(open_safetensors(folder / "x.safetensors")->read("a"), at::ones({4})));
}

TEST(Safetensors, MisalignedTensorsAreReadToo) {
  TemporaryFolder folder;
  write_bytes(
      folder / "x.safetensors",
      safetensors(
          R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
          "\x07" + floats({1.5f, -2.0f})));

  const auto source = open_safetensors(folder / "x.safetensors");

  EXPECT_TRUE(at::equal(source->read("f"), at::tensor({1.5f, -2.0f})));
  EXPECT_EQ(source->tensors().front().name, "b");
}

TEST(Safetensors, AnUnknownNameIsAnErrorWithTheNearest) {
  TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"model.norm.weight", at::ones({4})}});

  const auto source = open_safetensors(folder / "x.safetensors");

  EXPECT_THAT(error_of([&] { source->read("model.norm.wieght"); }),
              HasSubstr("did you mean 'model.norm.weight'?"));
  EXPECT_TRUE(source->contains("model.norm.weight"));
  EXPECT_FALSE(source->contains("model.norm.wieght"));
}

TEST(Safetensors, ShardsAreReadThroughTheIndex) {
  TemporaryFolder folder;
  write_safetensors(folder / "1.safetensors", {{"a", at::ones({2})}});
  write_safetensors(folder / "2.safetensors", {{"b", at::zeros({3})}});
  write_bytes(folder / "model.safetensors.index.json",
              R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  std::vector<std::filesystem::path> files;

  const auto source = open_safetensors_index(folder / "model.safetensors.index.json", &files);

  EXPECT_TRUE(at::equal(source->read("a"), at::ones({2})));
  EXPECT_TRUE(at::equal(source->read("b"), at::zeros({3})));
  EXPECT_EQ(files.size(), 2u);
}

TEST(Safetensors, AnIndexThatIsNotTrueToItsFilesIsRefused) {
  TemporaryFolder folder;
  write_safetensors(folder / "1.safetensors", {{"a", at::ones({2})}});
  const auto index = folder / "model.safetensors.index.json";
  const auto error = [&](const std::string& text) {
    write_bytes(index, text);
    return error_of([&] { open_safetensors_index(index); });
  };

  EXPECT_THAT(error(R"({"weight_map":{"a":"9.safetensors"}})"),
              HasSubstr("'9.safetensors', which is not in the same folder"));
  EXPECT_THAT(error(R"({"weight_map":{"b":"1.safetensors"}})"),
              HasSubstr("holds the tensor 'b', but it does not"));
  EXPECT_THAT(error(R"({"weight_map":{"a":"../1.safetensors"}})"),
              HasSubstr("must be the name of a file beside the index"));
  EXPECT_THAT(error(R"({"weight_map":{"a":7}})"),
              HasSubstr("must be the name of a file beside the index"));
  EXPECT_THAT(error(R"({"metadata":{}})"), HasSubstr("has no \"weight_map\""));
  EXPECT_THAT(error(R"({"weight_map":)"), HasSubstr("is not valid JSON from byte"));
}

TEST(Safetensors, EveryTensorOfAListedFileIsReadWhereverTheIndexPutsIt) {
  TemporaryFolder folder;
  write_safetensors(folder / "1.safetensors", {{"a", at::ones({2})}, {"both", at::ones({2})}});
  write_safetensors(folder / "2.safetensors",
                    {{"b", at::zeros({3})}, {"both", at::ones({2})}, {"unlisted", at::ones({1})}});
  const auto index = folder / "model.safetensors.index.json";
  write_bytes(index, R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors"}})");

  const auto source = open_safetensors_index(index);

  EXPECT_TRUE(at::equal(source->read("a"), at::ones({2})));
  EXPECT_TRUE(at::equal(source->read("both"), at::ones({2})));
  EXPECT_TRUE(source->contains("unlisted"));
  EXPECT_EQ(source->tensors().size(), 4u);
}

TEST(Safetensors, TwoTensorsOfOneNameThatDifferAreRefused) {
  TemporaryFolder folder;
  write_safetensors(folder / "1.safetensors", {{"a", at::ones({2})}});
  const auto index = folder / "model.safetensors.index.json";
  write_bytes(index, R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  for (const auto& other : {at::zeros({2}), at::ones({1, 2}), at::ones({2}, at::kInt)}) {
    write_safetensors(folder / "2.safetensors", {{"b", at::ones({1})}, {"a", other}});
    EXPECT_THAT(
        error_of([&] { open_safetensors_index(index); }),
        HasSubstr(
            "2.safetensors: contains the tensor 'a' with different values than 1.safetensors"));
  }
}

TEST(Safetensors, APointerOfGitLfsIsNamed) {
  TemporaryFolder folder;
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
  write_bytes(folder / "x.safetensors", pointer);
  write_bytes(folder / "x.gguf", pointer);
  EXPECT_THAT(error_of([&] { open_safetensors(folder / "x.safetensors"); }),
              HasSubstr("x.safetensors: is a Git LFS pointer instead of the file"));
  EXPECT_THAT(error_of([&] { GgufFile file(folder / "x.gguf"); }),
              HasSubstr("x.gguf: is a Git LFS pointer instead of the file"));
}

TEST(Safetensors, AHeaderLengthThatLiesIsRefused) {
  TemporaryFolder folder;
  const auto error = [&](const std::string& bytes) {
    write_bytes(folder / "x.safetensors", bytes);
    return error_of([&] { open_safetensors(folder / "x.safetensors"); });
  };

  EXPECT_THAT(error("abc"), HasSubstr("too short (3 bytes)"));
  EXPECT_THAT(error(raw<std::uint64_t>(1000) + "{}"),
              HasSubstr("claims 1000 bytes but the file has 10"));
  EXPECT_THAT(error(raw<std::uint64_t>(100'000'001) + "{}"),
              HasSubstr("more than the 100000000 that the format allows"));
  EXPECT_THAT(error(raw(UINT64_MAX) + "{}"),
              HasSubstr("more than the 100000000 that the format allows"));
}

TEST(Safetensors, AHeaderThatIsNotAnObjectIsRefused) {
  EXPECT_THAT(error_of_safetensors("{", ""), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_of_safetensors("[]", ""), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_of_safetensors("{\"\xff\":{}}", ""), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_of_safetensors(std::string(1'000'000, '['), ""),
              HasSubstr("is not a JSON object"));
}

TEST(Safetensors, ATensorNamedTwiceIsRefused) {
  EXPECT_THAT(
      error_of_safetensors(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          "x"),
      HasSubstr("names the tensor 'a' twice"));
}

TEST(Safetensors, AnEntryThatIsNotTrueToTheFileIsRefused) {
  const auto error = [](const std::string& entry) {
    return error_of_safetensors(R"({"a":)" + entry + "}", "12345678");
  };

  EXPECT_THAT(error("3"), HasSubstr("entry for tensor 'a' is not an object"));
  EXPECT_THAT(error(R"({"shape":[2],"data_offsets":[0,8]})"), HasSubstr("tensor 'a' has no dtype"));
  EXPECT_THAT(error(R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})"),
              HasSubstr("is of dtype F8_E4M3; supported are F64, F32"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
              HasSubstr("no list of whole numbers as its shape"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"),
              HasSubstr("no list of whole numbers as its shape"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2]})"),
              HasSubstr("no list of whole numbers as its data_offsets"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"),
              HasSubstr("data_offsets [8, 0], not a begin and an end after it"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"),
              HasSubstr("not a begin and an end after it"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})"),
              HasSubstr("ends at byte 12 of the data but the file has only 8; it is truncated"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
              HasSubstr("is [3] of F32 but has 8 bytes"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})"),
              HasSubstr("of F32 but has 8 bytes"));
  EXPECT_THAT(
      error(R"({"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]})"),
      HasSubstr("of F32 but has 8 bytes"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
              HasSubstr("leaves a gap before it"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
              HasSubstr("4 bytes follow the last tensor"));
}

TEST(Safetensors, OverlappingTensorsAreRefused) {
  EXPECT_THAT(
      error_of_safetensors(
          R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
          "1234"),
      HasSubstr("tensor 'b' overlaps the one before it"));
}

TEST(Safetensors, ABoolThatIsNeitherTrueNorFalseIsRefused) {
  TemporaryFolder folder;
  write_bytes(
      folder / "x.safetensors",
      safetensors(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\x01\x02"));

  EXPECT_THAT(error_of([&] { open_safetensors(folder / "x.safetensors")->read("a"); }),
              HasSubstr("neither true nor false"));
}

/// 2,000 damaged copies of the file, some cut short: each opens and reads, or the error says why
/// not.
void fuzz(const std::string& good,
          const std::function<void(const std::filesystem::path&)>& read_all) {
  TemporaryFolder folder;
  const auto path = folder / "fuzzed";
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    auto bytes = good;
    for (auto flips = 1 + random() % 4; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    write_bytes(path, bytes);
    try {
      read_all(path);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200);
}

TEST(Safetensors, RandomDamageIsReadOrRefusedNeverACrash) {
  TemporaryFolder folder;
  write_safetensors(
      folder / "x.safetensors",
      {{"a", at::ones({3, 2})}, {"b", at::ones({4}, at::kBool)}, {"c", at::ones({5}, at::kHalf)}});

  fuzz(read_text(folder / "x.safetensors"), [](const auto& path) {
    const auto source = open_safetensors(path);
    for (const auto& info : source->tensors()) source->read(info.name).sum();
  });
}

// One block of 32 values; nibble i of the first half is i, of the second half 15 - i.
std::string nibbles() {
  std::string bytes;
  for (int i = 0; i < 16; ++i) bytes += static_cast<char>(i | (15 - i) << 4);
  return bytes;
}

at::Tensor nibble_values() {
  return at::cat({at::arange(16), at::arange(15, -1, -1)}).to(at::kFloat);
}

TEST(Gguf, BlocksAreDequantizedAsGgmlDefinesThem) {
  std::string eight;
  for (int i = 0; i < 32; ++i) eight += static_cast<char>(static_cast<std::int8_t>(8 * i - 128));
  const std::string fifth("\x01\x00\x01\x80", 4);  // of the values 0, 16 and 31
  const auto with_fifth =
      nibble_values().index_add(0, at::tensor({0, 16, 31}), at::full({3}, 16.0f));

  EXPECT_TRUE(at::equal(dequantized(2, half(0.5f) + nibbles()), (nibble_values() - 8) * 0.5));
  EXPECT_TRUE(
      at::equal(dequantized(3, half(0.25f) + half(-2.0f) + nibbles()), nibble_values() * 0.25 - 2));
  EXPECT_TRUE(at::equal(dequantized(6, half(0.5f) + fifth + nibbles()), (with_fifth - 16) * 0.5));
  EXPECT_TRUE(
      at::equal(dequantized(7, half(0.5f) + half(3.0f) + fifth + nibbles()), with_fifth * 0.5 + 3));
  EXPECT_TRUE(
      at::equal(dequantized(8, half(2.0f) + eight), at::arange(32).to(at::kFloat) * 16 - 256));
  // The smallest scale that a half holds.
  EXPECT_TRUE(at::equal(dequantized(2, raw<std::uint16_t>(1) + nibbles()),
                        (nibble_values() - 8) * std::ldexp(1.0, -24)));
}

/// 64 blocks of pseudo-random bytes whose scales are zero, subnormal, the largest and ordinary
/// ones, and the sha256 of the values that gguf 0.19's gguf.quants.dequantize makes of them.
struct KnownValues {
  std::uint32_t type;
  // of a block
  std::size_t values;
  std::size_t bytes;
  std::vector<std::size_t> scales;  // where the block holds them, as halves
  const char* sha256;
};

std::string blocks_of(const KnownValues& known) {
  constexpr std::uint16_t scales[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x03FF,
                                      0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0x211F};
  std::string blocks;
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < 64 * known.bytes; ++i)
    blocks += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  for (std::size_t block = 0; block < 64; ++block)
    for (std::size_t k = 0; k < known.scales.size(); ++k)
      blocks.replace(block * known.bytes + known.scales[k], 2,
                     raw(scales[(block + 3 * k) % std::size(scales)]));
  return blocks;
}

TEST(Gguf, ValuesOfEveryTypeAreThoseOfTheReferenceBitForBit) {
  const KnownValues all[] = {
      {2, 32, 18, {0}, "c2f98a35c1f9caff066caace76b66a4b11b0662752d543ac0c0dfcf04ef0ea46"},  // Q4_0
      // Q4_1
      {3, 32, 20, {0, 2}, "050b7942358276d211d0b35ed3f012bf575c4179a50ccfc61fbe66bc4a91a8d6"},
      {6, 32, 22, {0}, "4eca4064c4f1c6d121479a031287b4c2114c6f1d6c93b0e6b7fcf406329a5520"},  // Q5_0
      // Q5_1
      {7, 32, 24, {0, 2}, "c768d4a6a01fada81a9e1d88ce1d72805440df3b2a94ef9620e7401dcc693a93"},
      {8, 32, 34, {0}, "14270dc5ee97ddde86959c63f67f12c68245d8c313e9d3bbcef8687d94cac5f9"},  // Q8_0
      // Q2_K
      {10, 256, 84, {80, 82}, "36ea8f0169c74db5520bf621a3a9d4393cf8576ceb7dab9fba5171cf9f5bcf71"},
      // Q3_K
      {11, 256, 110, {108}, "3c63a8e2df1c6b8a862b155cfde4319df60d3d15d8dc1632ddfc7e07b04bdc96"},
      // Q4_K
      {12, 256, 144, {0, 2}, "4829455dbd4227fed6acca07d6041e5b64f96d2abd9582ef1d3c54ccff5c1538"},
      // Q5_K
      {13, 256, 176, {0, 2}, "513ae0afd5d56bba7f20d9d25d1e8719078d40234a2bfbf0a6ea39255af29703"},
      // Q6_K
      {14, 256, 210, {208}, "a5ba3cc51c108fac0853963d70fc64d45ced6ac7722ceb4aa78ae5b5922012ff"},
      // IQ4_NL
      {20, 32, 18, {0}, "41620c5f19d971f9e1806279783b3505c680571893042a2b72bad51d8106134a"},
      // IQ4_XS
      {23, 256, 136, {0}, "7db75aa68b3b4a03be9a8d52c9dc8caf06308318ad43d998d95cadbeedb5dce1"},
      // MXFP4
      {39, 32, 17, {}, "213145705c4487f4274d2537f96e6de33158ea70cac0c29c39413b96def67805"},
      // TQ1_0
      {34, 256, 54, {52}, "33477155738723c1f04ba3a48ade6939a5d0a1412cdb6f0d51ab82afe6161c89"},
      // TQ2_0
      {35, 256, 66, {64}, "62ad3f24a6bd1856fe81267bd1ba9c61be199ded9d2897d5d690237ae112f11c"},
  };

  for (const auto& known : all) {
    const auto values = dequantized(known.type, blocks_of(known), 64 * known.values);
    EXPECT_EQ(sha256({static_cast<const char*>(values.const_data_ptr()), values.nbytes()}),
              known.sha256)
        << known.type;
  }
}

TEST(Gguf, BlocksOfQ8KHaveTheirScaleInFloat32) {
  std::string eight;
  for (int i = 0; i < 256; ++i) eight += static_cast<char>(static_cast<std::int8_t>(i - 128));

  const auto values = dequantized(15, raw(0.1f) + eight + std::string(32, '\x7f'), 256);

  EXPECT_TRUE(at::equal(values, at::arange(-128, 128).to(at::kFloat) * 0.1f));
}

TEST(Gguf, ManyBlocksKeepTheirOrder) {
  std::string blocks;
  for (int i = 0; i < 20000; ++i)
    blocks += half(static_cast<float>(i % 1000)) + std::string(32, '\x01');

  const auto values = dequantized(8, blocks, 20000 * 32);

  EXPECT_TRUE(
      at::equal(values.view({20000, 32}),
                at::arange(20000).remainder(1000).to(at::kFloat).unsqueeze(1).expand({20000, 32})));
}

TEST(Gguf, PlainTensorsKeepTheirTypeAndShapesAreTurnedRound) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", gguf({}, {{"f", {3, 2}, 0, floats({0, 1, 2, 3, 4, 5})},
                                           {"h", {2}, 1, half(1.5f) + half(-1)},
                                           {"b", {1}, 30, raw<std::uint16_t>(0x3FC0)}}));

  GgufFile file(folder / "x.gguf");

  EXPECT_TRUE(at::equal(file.read("f"), at::arange(6).reshape({2, 3}).to(at::kFloat)));
  EXPECT_TRUE(at::equal(file.read("h"), at::tensor({1.5f, -1.0f}).to(at::kHalf)));
  EXPECT_TRUE(at::equal(file.read("b"), at::tensor({1.5f}).to(at::kBFloat16)));
  EXPECT_EQ(file.tensors()[0].stored, "F32");
  EXPECT_EQ(file.tensors()[0].bytes, 24u);
}

TEST(Gguf, MetadataOfEveryTypeIsRead) {
  TemporaryFolder folder;
  write_bytes(
      folder / "x.gguf",
      gguf({gguf_pair("u8", 0, raw<std::uint8_t>(200)), gguf_pair("i8", 1, raw<std::int8_t>(-5)),
            gguf_pair("u16", 2, raw<std::uint16_t>(60000)),
            gguf_pair("i16", 3, raw<std::int16_t>(-300)), gguf_pair("u32", 7u),
            gguf_pair("i32", 5, raw<std::int32_t>(-7)), gguf_pair("f32", 0.5f),
            gguf_pair("bool", 7, "\x01"), gguf_pair("string", "text"),
            gguf_pair(
                "list", 9,
                raw<std::uint32_t>(8) + raw<std::uint64_t>(2) + gguf_text("a") + gguf_text("b")),
            gguf_pair("u64", 10, raw(UINT64_MAX)), gguf_pair("i64", 11, raw<std::int64_t>(-9)),
            gguf_pair("f64", 12, raw(0.25))},
           {}));

  const GgufFile file(folder / "x.gguf");

  EXPECT_EQ(file.metadata(), nlohmann::json({{"u8", 200},
                                             {"i8", -5},
                                             {"u16", 60000},
                                             {"i16", -300},
                                             {"u32", 7},
                                             {"i32", -7},
                                             {"f32", 0.5},
                                             {"bool", true},
                                             {"string", "text"},
                                             {"list", {"a", "b"}},
                                             {"u64", UINT64_MAX},
                                             {"i64", -9},
                                             {"f64", 0.25}}));
}

TEST(Gguf, AStartThatIsNotItsOwnIsRefused) {
  EXPECT_THAT(error_of_gguf(""), HasSubstr("is not a GGUF file"));
  EXPECT_THAT(error_of_gguf("GGML...."), HasSubstr("is not a GGUF file"));
  EXPECT_THAT(error_of_gguf("GGUF"), HasSubstr("ends within its version (at byte 4)"));
  EXPECT_THAT(error_of_gguf("GGUF" + raw<std::uint32_t>(1)),
              HasSubstr("is GGUF of version 1; supported are"));
  EXPECT_THAT(error_of_gguf("GGUF" + raw<std::uint32_t>(0x03000000)), HasSubstr("little-endian"));
}

TEST(Gguf, ImpossibleCountsAreRefusedBeforeAnythingIsAllocated) {
  const std::string start = "GGUF" + raw<std::uint32_t>(3);
  const auto list = [](const std::string& body) { return gguf({gguf_pair("list", 9, body)}, {}); };
  std::string nested;
  for (int i = 0; i < 10; ++i) nested += raw<std::uint32_t>(9) + raw<std::uint64_t>(1);

  EXPECT_THAT(error_of_gguf(start + raw(UINT64_MAX) + raw<std::uint64_t>(0)),
              HasSubstr("claims 18446744073709551615 tensors"));
  EXPECT_THAT(error_of_gguf(start + raw<std::uint64_t>(0) + raw(std::uint64_t{1} << 40)),
              HasSubstr("claims 1099511627776 metadata pairs"));
  EXPECT_THAT(error_of_gguf(start + raw<std::uint64_t>(0) + raw<std::uint64_t>(1) +
                            raw(UINT64_MAX) + std::string(64, 'x')),
              HasSubstr("ends within its metadata"));
  EXPECT_THAT(error_of_gguf(list(raw<std::uint32_t>(4) + raw(std::uint64_t{1} << 62))),
              HasSubstr("claims 4611686018427387904 array elements"));
  EXPECT_THAT(error_of_gguf(list(nested + raw<std::uint32_t>(0) + raw<std::uint64_t>(0))),
              HasSubstr("nested more than 4 deep"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("x", 13, "")}, {})), HasSubstr("unknown type 13"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("x", 1u), gguf_pair("x", 1u)}, {})),
              HasSubstr("the metadata key 'x' twice"));
}

TEST(Gguf, TensorsThatAreNotTrueToTheFileAreRefused) {
  const auto block = half(1) + nibbles();
  const auto shaped = [&](std::vector<std::uint64_t> sizes, std::uint32_t type = 0) {
    return error_of_gguf(gguf({}, {{"t", std::move(sizes), type, floats({1, 2})}}));
  };
  const auto file = gguf({}, {{"a", {8}, 0, floats({1, 2, 3, 4, 5, 6, 7, 8})},
                              {"b", {8}, 0, floats({1, 2, 3, 4, 5, 6, 7, 8})}});
  auto overlapping = file;
  auto misaligned = file;
  const auto second_offset = file.find(gguf_text("b")) + 9 + 4 + 8 + 4;
  overlapping.replace(second_offset, 8, raw<std::uint64_t>(0));
  misaligned.replace(second_offset, 8, raw<std::uint64_t>(33));

  EXPECT_THAT(shaped({}), HasSubstr("tensor 't' claims 0 dimensions"));
  EXPECT_THAT(shaped({1, 1, 1, 1, 2}), HasSubstr("tensor 't' claims 5 dimensions"));
  EXPECT_THAT(shaped({0}), HasSubstr("cannot have the shape [0] as F32"));
  EXPECT_THAT(shaped({UINT64_MAX}), HasSubstr("cannot have the shape [-1] as F32"));
  EXPECT_THAT(shaped({std::uint64_t{1} << 32, std::uint64_t{1} << 32}),
              HasSubstr("cannot have the shape"));
  EXPECT_THAT(shaped({std::uint64_t{1} << 62}), HasSubstr("reaches beyond the"));
  EXPECT_THAT(shaped({33}, 2), HasSubstr("cannot have the shape [33] as Q4_0"));
  EXPECT_THAT(shaped({9}),
              HasSubstr("reaches beyond the 32 bytes of tensor data; the file is truncated"));
  EXPECT_THAT(shaped({2}, 12), HasSubstr("cannot have the shape [2] as Q4_K"));
  EXPECT_THAT(shaped({256}, 16),
              HasSubstr("is stored as IQ2_XXS, which is not supported; supported are F32, "
                        "F64, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K"));
  EXPECT_THAT(shaped({256}, 40), HasSubstr("is stored as NVFP4, which is not supported"));
  EXPECT_THAT(shaped({2}, 99), HasSubstr("is stored as number 99"));
  EXPECT_THAT(error_of_gguf(overlapping), HasSubstr("overlaps the one before it"));
  EXPECT_THAT(error_of_gguf(misaligned),
              HasSubstr("begins at byte 33, which is not aligned to 32"));
  EXPECT_THAT(error_of_gguf(gguf({}, {{"t", {32}, 2, block}, {"t", {32}, 2, block}})),
              HasSubstr("two tensors named 't'"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("general.alignment", 48u)}, {})),
              HasSubstr("general.alignment 48; it must be a power of two"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("general.alignment", 0u)}, {})),
              HasSubstr("general.alignment 0"));
}

std::vector<std::string> llama_pairs(const std::string& without = "") {
  std::vector<std::string> pairs{gguf_pair("general.architecture", "llama")};
  const std::pair<const char*, std::uint32_t> numbers[] = {
      {"embedding_length", 8}, {"feed_forward_length", 4},  {"block_count", 1},
      {"context_length", 16},  {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
  for (const auto& [key, value] : numbers)
    if (key != without) pairs.push_back(gguf_pair(std::string("llama.") + key, value));
  pairs.push_back(gguf_pair("llama.attention.layer_norm_rms_epsilon", 1e-5f));
  pairs.push_back(gguf_pair("tokenizer.ggml.bos_token_id", 1u));
  return pairs;
}

std::vector<GgufTensor> llama_tensors() {
  std::vector<float> numbers(64);
  // each row holds its number
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i / 8);
  const std::vector<float> few(numbers.begin(), numbers.begin() + 32);
  return {{"token_embd.weight", {8, 3}, 0, floats({few.begin(), few.begin() + 24})},
          {"blk.0.attn_q.weight", {8, 8}, 0, floats(numbers)},
          {"blk.0.attn_k.weight", {8, 4}, 0, floats(few)},
          {"output_norm.weight", {8}, 0, floats({1, 1, 1, 1, 1, 1, 1, 1})}};
}

TEST(LlamaNames, RowsOfQueriesAndKeysAreUnpermutedHeadByHead) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", gguf(llama_pairs(), llama_tensors()));

  const auto weights = huggingface_weights(std::make_unique<GgufFile>(folder / "x.gguf"));

  const auto rows = [&](const char* name) {
    return weights->read(name).select(1, 0).to(at::kLong);
  };
  EXPECT_TRUE(at::equal(rows("model.layers.0.self_attn.q_proj.weight"),
                        at::tensor({0, 2, 1, 3, 4, 6, 5, 7}, at::kLong)));
  EXPECT_TRUE(at::equal(rows("model.layers.0.self_attn.k_proj.weight"),
                        at::tensor({0, 2, 1, 3}, at::kLong)));
  EXPECT_TRUE(at::equal(rows("model.embed_tokens.weight"), at::tensor({0, 1, 2}, at::kLong)));
  EXPECT_TRUE(weights->contains("model.norm.weight"));
}

TEST(LlamaNames, TheConfigIsMadeFromTheMetadata) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", gguf(llama_pairs(), llama_tensors()));

  const auto config = huggingface_config(GgufFile(folder / "x.gguf"));

  EXPECT_EQ(
      config,
      nlohmann::json::parse(
          R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":4,
    "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":4,"hidden_act":"silu","max_position_embeddings":16,
    "rope_theta":10000.0,"rms_norm_eps":1e-05,"vocab_size":3,"attention_bias":false,"mlp_bias":false,"tie_word_embeddings":true,
    "torch_dtype":"float32","bos_token_id":1})"));
}

TEST(LlamaNames, WhatIsNotALlamaIsRefused) {
  TemporaryFolder folder;
  const auto error = [&](const std::vector<std::string>& pairs,
                         const std::vector<GgufTensor>& tensors) {
    write_bytes(folder / "x.gguf", gguf(pairs, tensors));
    return error_of([&] {
      huggingface_config(GgufFile(folder / "x.gguf"));
      huggingface_weights(std::make_unique<GgufFile>(folder / "x.gguf"));
    });
  };
  auto scaled = llama_pairs();
  scaled.push_back(gguf_pair("llama.rope.scaling.type", "longrope"));
  auto experts = llama_tensors();
  experts.push_back({"blk.0.ffn_gate_exps.weight", {1}, 0, floats({1})});
  auto uneven = llama_tensors();
  uneven[1].sizes = {8, 7};

  EXPECT_THAT(error({}, {}), HasSubstr("does not say its architecture"));
  EXPECT_THAT(error({gguf_pair("general.architecture", "mamba")}, {}),
              HasSubstr("architecture 'mamba'; GGUF files are supported for: llama"));
  EXPECT_THAT(error(llama_pairs("block_count"), llama_tensors()),
              HasSubstr("as 'llama.block_count'"));
  EXPECT_THAT(error(llama_pairs(), {}), HasSubstr("has no tensor 'token_embd.weight'"));
  EXPECT_THAT(
      error(scaled, llama_tensors()),
      HasSubstr("has an unsupported scaling of rotary positions (longrope; none, linear, yarn"));
  EXPECT_THAT(error(llama_pairs(), experts),
              HasSubstr("tensor 'blk.0.ffn_gate_exps.weight' is unknown"));
  write_bytes(folder / "x.gguf", gguf(llama_pairs(), uneven));
  EXPECT_THAT(error_of([&] {
                huggingface_weights(std::make_unique<GgufFile>(folder / "x.gguf"))
                    ->read("model.layers.0.self_attn.q_proj.weight");
              }),
              HasSubstr("of shape [7, 8] cannot be divided among 2 heads"));
}

std::string part(const std::string& name, std::uint32_t number, std::uint32_t count,
                 std::vector<std::string> pairs = {}) {
  pairs.push_back(gguf_pair("split.no", number));
  pairs.push_back(gguf_pair("split.count", count));
  return gguf(pairs, {{name, {2}, 0, floats({static_cast<float>(number), 1})}});
}

TEST(GgufParts, TheFirstBringsTheOthers) {
  TemporaryFolder folder;
  write_bytes(folder / "m-00001-of-00002.gguf", part("a", 0, 2, {gguf_pair("key", "value")}));
  write_bytes(folder / "m-00002-of-00002.gguf", part("b", 1, 2));

  GgufFile file(folder / "m-00001-of-00002.gguf");

  EXPECT_TRUE(at::equal(file.read("a"), at::tensor({0.0f, 1.0f})));
  EXPECT_TRUE(at::equal(file.read("b"), at::tensor({1.0f, 1.0f})));
  EXPECT_EQ(file.metadata()["key"], "value");
  EXPECT_EQ(file.files().size(), 2u);
}

TEST(GgufParts, PartsThatDoNotBelongTogetherAreRefused) {
  TemporaryFolder folder;
  const auto error = [&](const char* name) {
    return error_of([&] { GgufFile file(folder / name); });
  };
  write_bytes(folder / "m-00001-of-00002.gguf", part("a", 0, 2));
  EXPECT_THAT(
      error("m-00001-of-00002.gguf"),
      HasSubstr("is part 1 of 2, but m-00002-of-00002.gguf is not beside it; fetch that part too"));
  write_bytes(folder / "m-00002-of-00002.gguf", part("b", 1, 3));
  EXPECT_THAT(error("m-00001-of-00002.gguf"),
              HasSubstr("m-00002-of-00002.gguf: is not part 2 of 2 of a model, as its name says"));
  write_bytes(folder / "m-00002-of-00002.gguf", part("b", 1, 2));
  EXPECT_THAT(error("m-00002-of-00002.gguf"),
              HasSubstr("is part 2 of 2; name the first part, m-00001-of-00002.gguf"));
  write_bytes(folder / "m-00002-of-00002.gguf", part("a", 1, 2));
  EXPECT_THAT(error("m-00001-of-00002.gguf"), HasSubstr("two tensors named 'a'"));
  write_bytes(folder / "renamed.gguf", part("a", 0, 2));
  EXPECT_THAT(error("renamed.gguf"), HasSubstr("not named as one (NAME-00001-of-00002.gguf)"));
}

nlohmann::json rope_scaling_of(std::vector<std::string> more,
                               const std::vector<float>& factors = {}) {
  TemporaryFolder folder;
  auto pairs = llama_pairs();
  pairs.insert(pairs.end(), more.begin(), more.end());
  auto tensors = llama_tensors();
  if (!factors.empty())
    tensors.push_back({"rope_freqs.weight", {factors.size()}, 0, floats(factors)});
  write_bytes(folder / "x.gguf", gguf(pairs, tensors));
  const auto config = huggingface_config(GgufFile(folder / "x.gguf"));
  EXPECT_FALSE(huggingface_weights(std::make_unique<GgufFile>(folder / "x.gguf"))
                   ->contains("rope_freqs.weight"));
  return config.value("rope_scaling", nlohmann::json());
}

TEST(RopeScaling, IsThatOfTheMetadata) {
  const auto type = [](const char* name) { return gguf_pair("llama.rope.scaling.type", name); };
  const auto factor = gguf_pair("llama.rope.scaling.factor", 4.0f);

  EXPECT_EQ(rope_scaling_of({type("none")}), nullptr);
  EXPECT_EQ(rope_scaling_of({type("linear"), gguf_pair("llama.rope.scaling.factor", 1.0f)}),
            nullptr);
  EXPECT_EQ(rope_scaling_of({type("linear"), factor}),
            nlohmann::json({{"rope_type", "linear"}, {"factor", 4.0}}));
  EXPECT_EQ(rope_scaling_of({gguf_pair("llama.rope.scale_linear", 2.0f)}),
            nlohmann::json({{"rope_type", "linear"}, {"factor", 2.0}}));
  EXPECT_EQ(rope_scaling_of({type("yarn"), factor,
                             gguf_pair("llama.rope.scaling.original_context_length", 8u),
                             gguf_pair("llama.rope.scaling.yarn_beta_fast", 24.0f)}),
            nlohmann::json({{"rope_type", "yarn"},
                            {"factor", 4.0},
                            {"original_max_position_embeddings", 8},
                            {"beta_fast", 24.0}}));
  EXPECT_NEAR(
      rope_scaling_of({type("yarn"), factor,
                       gguf_pair("llama.rope.scaling.attn_factor", 0.5f)})["attention_factor"]
          .get<double>(),
      0.5 * (1 + 0.1 * std::log(4.0)), 1e-12);
}

TEST(RopeScaling, FactorsAreThoseOfLlama3OrOfOneFactor) {
  EXPECT_EQ(rope_scaling_of({}, {1, 1}), nullptr);
  EXPECT_EQ(rope_scaling_of({}, {4, 4}),
            nlohmann::json({{"rope_type", "linear"}, {"factor", 4.0}}));
  const auto scaling = rope_scaling_of({}, {1, 8});
  EXPECT_EQ(scaling["rope_type"], "llama3");
  EXPECT_EQ(scaling["factor"], 8.0);
  EXPECT_GT(scaling["high_freq_factor"], scaling["low_freq_factor"]);
}

TEST(RopeScaling, FactorsOfAnotherKindAreRefused) {
  EXPECT_THAT(error_of([] { rope_scaling_of({}, {8, 1}); }),
              HasSubstr("by factors ('rope_freqs.weight') other than those of Llama 3"));
  EXPECT_THAT(error_of([] { rope_scaling_of({}, {1, 0.5f}); }),
              HasSubstr("holds the factor 0.5, where 1 or more is needed"));
  EXPECT_THAT(error_of([] { rope_scaling_of({}, {1, 1, 1}); }),
              HasSubstr("has 3 factors for heads of width 4"));
  EXPECT_THAT(
      error_of([] { rope_scaling_of({gguf_pair("llama.rope.scaling.type", "yarn")}, {1, 8}); }),
      HasSubstr("yarn with factors"));
}

TEST(GgufConfig, WhatWouldComputeSomethingElseIsRefused) {
  const auto error = [](const std::string& pair) {
    return error_of([&] { rope_scaling_of({pair}); });
  };
  EXPECT_THAT(error(gguf_pair("llama.expert_count", 8u)),
              HasSubstr("has llama.expert_count = 8, which is not supported (only 0 is)"));
  EXPECT_THAT(error(gguf_pair("llama.attention.causal", 7, std::string(1, '\0'))),
              HasSubstr("has llama.attention.causal = false"));
  EXPECT_THAT(
      error(gguf_pair("llama.attention.value_length", 8u)),
      HasSubstr("has llama.attention.value_length = 8, which is not supported (only 4 is)"));
  EXPECT_THAT(error(gguf_pair("llama.logit_scale", 0.25f)),
              HasSubstr("has llama.logit_scale = 0.25"));
  EXPECT_EQ(error(gguf_pair("llama.attention.value_length", 4u)), "");
}

TEST(GgufConfig, ASlidingWindowMakesALlamaAMistral) {
  TemporaryFolder folder;
  auto pairs = llama_pairs();
  pairs.push_back(gguf_pair("llama.attention.sliding_window", 4u));
  write_bytes(folder / "x.gguf", gguf(pairs, llama_tensors()));

  const auto config = huggingface_config(GgufFile(folder / "x.gguf"));

  EXPECT_EQ(config["model_type"], "mistral");
  EXPECT_EQ(config["sliding_window"], 4);
}

TEST(Gguf, RandomDamageIsReadOrRefusedNeverACrash) {
  auto tensors = llama_tensors();
  for (const auto& [type, bytes] : {std::pair(10u, 84), std::pair(11u, 110), std::pair(12u, 144),
                                    std::pair(13u, 176), std::pair(14u, 210), std::pair(23u, 136)})
    tensors.push_back({fmt::format("blk.{}.attn_v.weight", type),
                       {256},
                       type,
                       std::string(static_cast<std::size_t>(bytes), '\x5a')});
  tensors.push_back({"rope_freqs.weight", {2}, 0, floats({1, 8})});
  tensors.push_back({"blk.0.attn_v.weight", {32}, 3, half(1) + half(0) + nibbles()});

  fuzz(gguf(llama_pairs(), tensors), [](const auto& path) {
    auto file = std::make_unique<GgufFile>(path);
    huggingface_config(*file);
    const auto source = huggingface_weights(std::move(file));
    for (const auto& info : source->tensors()) source->read(info.name).sum();
  });
}

}  // namespace
