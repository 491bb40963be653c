// The safetensors and GGUF readers, and the safetensors writer.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <random>

#include "core/files.hpp"
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
  for (const auto type : {at::kBool, at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kChar, at::kByte})
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
  write_bytes(folder / "x.safetensors", safetensors(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                                                    "\x07" + floats({1.5f, -2.0f})));

  const auto source = open_safetensors(folder / "x.safetensors");

  EXPECT_TRUE(at::equal(source->read("f"), at::tensor({1.5f, -2.0f})));
  EXPECT_EQ(source->tensors().front().name, "b");
}

TEST(Safetensors, AnUnknownNameIsAnErrorWithTheNearest) {
  TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"model.norm.weight", at::ones({4})}});

  const auto source = open_safetensors(folder / "x.safetensors");

  EXPECT_THAT(error_of([&] { source->read("model.norm.wieght"); }), HasSubstr("did you mean 'model.norm.weight'?"));
  EXPECT_TRUE(source->contains("model.norm.weight"));
  EXPECT_FALSE(source->contains("model.norm.wieght"));
}

TEST(Safetensors, ShardsAreReadThroughTheIndex) {
  TemporaryFolder folder;
  write_safetensors(folder / "1.safetensors", {{"a", at::ones({2})}});
  write_safetensors(folder / "2.safetensors", {{"b", at::zeros({3})}});
  write_bytes(folder / "model.safetensors.index.json", R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
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

  EXPECT_THAT(error(R"({"weight_map":{"a":"9.safetensors"}})"), HasSubstr("'9.safetensors', which is not beside it"));
  EXPECT_THAT(error(R"({"weight_map":{"b":"1.safetensors"}})"), HasSubstr("holds the tensor 'b', but it does not"));
  EXPECT_THAT(error(R"({"weight_map":{"a":"../1.safetensors"}})"), HasSubstr("must be the name of a file beside the index"));
  EXPECT_THAT(error(R"({"weight_map":{"a":7}})"), HasSubstr("must be the name of a file beside the index"));
  EXPECT_THAT(error(R"({"metadata":{}})"), HasSubstr("has no \"weight_map\""));
  EXPECT_THAT(error(R"({"weight_map":)"), HasSubstr("is not valid JSON from byte"));
}

TEST(Safetensors, AHeaderLengthThatLiesIsRefused) {
  TemporaryFolder folder;
  const auto error = [&](const std::string& bytes) {
    write_bytes(folder / "x.safetensors", bytes);
    return error_of([&] { open_safetensors(folder / "x.safetensors"); });
  };

  EXPECT_THAT(error("abc"), HasSubstr("too short (3 bytes)"));
  EXPECT_THAT(error(raw<std::uint64_t>(1000) + "{}"), HasSubstr("claims 1000 bytes but the file has 10"));
  EXPECT_THAT(error(raw<std::uint64_t>(100'000'001) + "{}"), HasSubstr("more than the 100000000 the format allows"));
  EXPECT_THAT(error(raw(UINT64_MAX) + "{}"), HasSubstr("more than the 100000000 the format allows"));
}

TEST(Safetensors, AHeaderThatIsNotAnObjectIsRefused) {
  EXPECT_THAT(error_of_safetensors("{", ""), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_of_safetensors("[]", ""), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_of_safetensors("{\"\xff\":{}}", ""), HasSubstr("is not a JSON object"));
  EXPECT_THAT(error_of_safetensors(std::string(1'000'000, '['), ""), HasSubstr("is not a JSON object"));
}

TEST(Safetensors, ATensorNamedTwiceIsRefused) {
  EXPECT_THAT(error_of_safetensors(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x"),
              HasSubstr("names the tensor 'a' twice"));
}

TEST(Safetensors, AnEntryThatIsNotTrueToTheFileIsRefused) {
  const auto error = [](const std::string& entry) { return error_of_safetensors(R"({"a":)" + entry + "}", "12345678"); };

  EXPECT_THAT(error("3"), HasSubstr("entry for tensor 'a' is not an object"));
  EXPECT_THAT(error(R"({"shape":[2],"data_offsets":[0,8]})"), HasSubstr("tensor 'a' has no dtype"));
  EXPECT_THAT(error(R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})"), HasSubstr("is of dtype F8_E4M3; supported are F64, F32"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), HasSubstr("no list of whole numbers as its shape"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), HasSubstr("no list of whole numbers as its shape"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2]})"), HasSubstr("no list of whole numbers as its data_offsets"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), HasSubstr("data_offsets [8, 0], not a begin and an end after it"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), HasSubstr("not a begin and an end after it"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})"), HasSubstr("ends at byte 12 of the data but the file has only 8; it is truncated"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), HasSubstr("is [3] of F32 but has 8 bytes"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})"), HasSubstr("of F32 but has 8 bytes"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]})"), HasSubstr("of F32 but has 8 bytes"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), HasSubstr("leaves a hole before it"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), HasSubstr("4 bytes follow the last tensor"));
}

TEST(Safetensors, OverlappingTensorsAreRefused) {
  EXPECT_THAT(error_of_safetensors(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", "1234"),
              HasSubstr("tensor 'b' overlaps the one before it"));
}

TEST(Safetensors, ABoolThatIsNeitherTrueNorFalseIsRefused) {
  TemporaryFolder folder;
  write_bytes(folder / "x.safetensors", safetensors(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\x01\x02"));

  EXPECT_THAT(error_of([&] { open_safetensors(folder / "x.safetensors")->read("a"); }), HasSubstr("neither true nor false"));
}

/// 2,000 damaged copies of the file, some cut short: each opens and reads, or the error says why not.
void fuzz(const std::string& good, const std::function<void(const std::filesystem::path&)>& read_all) {
  TemporaryFolder folder;
  const auto path = folder / "fuzzed";
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    auto bytes = good;
    for (auto flips = 1 + random() % 4; flips > 0; --flips) bytes[random() % bytes.size()] = static_cast<char>(random());
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
  write_safetensors(folder / "x.safetensors", {{"a", at::ones({3, 2})}, {"b", at::ones({4}, at::kBool)}, {"c", at::ones({5}, at::kHalf)}});

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

at::Tensor nibble_values() { return at::cat({at::arange(16), at::arange(15, -1, -1)}).to(at::kFloat); }

TEST(Gguf, BlocksAreDequantizedAsGgmlDefinesThem) {
  std::string eight;
  for (int i = 0; i < 32; ++i) eight += static_cast<char>(static_cast<std::int8_t>(8 * i - 128));
  const std::string fifth("\x01\x00\x01\x80", 4);  // of the values 0, 16 and 31
  const auto with_fifth = nibble_values().index_add(0, at::tensor({0, 16, 31}), at::full({3}, 16.0f));

  EXPECT_TRUE(at::equal(dequantized(2, half(0.5f) + nibbles()), (nibble_values() - 8) * 0.5));
  EXPECT_TRUE(at::equal(dequantized(3, half(0.25f) + half(-2.0f) + nibbles()), nibble_values() * 0.25 - 2));
  EXPECT_TRUE(at::equal(dequantized(6, half(0.5f) + fifth + nibbles()), (with_fifth - 16) * 0.5));
  EXPECT_TRUE(at::equal(dequantized(7, half(0.5f) + half(3.0f) + fifth + nibbles()), with_fifth * 0.5 + 3));
  EXPECT_TRUE(at::equal(dequantized(8, half(2.0f) + eight), at::arange(32).to(at::kFloat) * 16 - 256));
  // The smallest scale that a half holds.
  EXPECT_TRUE(at::equal(dequantized(2, raw<std::uint16_t>(1) + nibbles()), (nibble_values() - 8) * std::ldexp(1.0, -24)));
}

TEST(Gguf, ManyBlocksKeepTheirOrder) {
  std::string blocks;
  for (int i = 0; i < 20000; ++i) blocks += half(static_cast<float>(i % 1000)) + std::string(32, '\x01');

  const auto values = dequantized(8, blocks, 20000 * 32);

  EXPECT_TRUE(at::equal(values.view({20000, 32}), at::arange(20000).remainder(1000).to(at::kFloat).unsqueeze(1).expand({20000, 32})));
}

TEST(Gguf, PlainTensorsKeepTheirTypeAndShapesAreTurnedRound) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", gguf({}, {{"f", {3, 2}, 0, floats({0, 1, 2, 3, 4, 5})}, {"h", {2}, 1, half(1.5f) + half(-1)}, {"b", {1}, 30, raw<std::uint16_t>(0x3FC0)}}));

  GgufFile file(folder / "x.gguf");

  EXPECT_TRUE(at::equal(file.read("f"), at::arange(6).reshape({2, 3}).to(at::kFloat)));
  EXPECT_TRUE(at::equal(file.read("h"), at::tensor({1.5f, -1.0f}).to(at::kHalf)));
  EXPECT_TRUE(at::equal(file.read("b"), at::tensor({1.5f}).to(at::kBFloat16)));
  EXPECT_EQ(file.tensors()[0].stored, "F32");
  EXPECT_EQ(file.tensors()[0].bytes, 24u);
}

TEST(Gguf, MetadataOfEveryTypeIsRead) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf",
              gguf({gguf_pair("u8", 0, raw<std::uint8_t>(200)), gguf_pair("i8", 1, raw<std::int8_t>(-5)), gguf_pair("u16", 2, raw<std::uint16_t>(60000)),
                    gguf_pair("i16", 3, raw<std::int16_t>(-300)), gguf_pair("u32", 7u), gguf_pair("i32", 5, raw<std::int32_t>(-7)), gguf_pair("f32", 0.5f),
                    gguf_pair("bool", 7, "\x01"), gguf_pair("string", "text"), gguf_pair("list", 9, raw<std::uint32_t>(8) + raw<std::uint64_t>(2) + gguf_text("a") + gguf_text("b")),
                    gguf_pair("u64", 10, raw(UINT64_MAX)), gguf_pair("i64", 11, raw<std::int64_t>(-9)), gguf_pair("f64", 12, raw(0.25))},
                   {}));

  const GgufFile file(folder / "x.gguf");

  EXPECT_EQ(file.metadata(), nlohmann::json({{"u8", 200}, {"i8", -5}, {"u16", 60000}, {"i16", -300}, {"u32", 7}, {"i32", -7}, {"f32", 0.5}, {"bool", true},
                                             {"string", "text"}, {"list", {"a", "b"}}, {"u64", UINT64_MAX}, {"i64", -9}, {"f64", 0.25}}));
}

TEST(Gguf, AStartThatIsNotItsOwnIsRefused) {
  EXPECT_THAT(error_of_gguf(""), HasSubstr("is no GGUF file"));
  EXPECT_THAT(error_of_gguf("GGML...."), HasSubstr("is no GGUF file"));
  EXPECT_THAT(error_of_gguf("GGUF"), HasSubstr("ends within its version (at byte 4)"));
  EXPECT_THAT(error_of_gguf("GGUF" + raw<std::uint32_t>(1)), HasSubstr("is GGUF of version 1; supported are"));
  EXPECT_THAT(error_of_gguf("GGUF" + raw<std::uint32_t>(0x03000000)), HasSubstr("little-endian"));
}

TEST(Gguf, ImpossibleCountsAreRefusedBeforeAnythingIsAllocated) {
  const std::string start = "GGUF" + raw<std::uint32_t>(3);
  const auto list = [](const std::string& body) { return gguf({gguf_pair("list", 9, body)}, {}); };
  std::string nested;
  for (int i = 0; i < 10; ++i) nested += raw<std::uint32_t>(9) + raw<std::uint64_t>(1);

  EXPECT_THAT(error_of_gguf(start + raw(UINT64_MAX) + raw<std::uint64_t>(0)), HasSubstr("claims 18446744073709551615 tensors"));
  EXPECT_THAT(error_of_gguf(start + raw<std::uint64_t>(0) + raw(std::uint64_t{1} << 40)), HasSubstr("claims 1099511627776 metadata pairs"));
  EXPECT_THAT(error_of_gguf(start + raw<std::uint64_t>(0) + raw<std::uint64_t>(1) + raw(UINT64_MAX) + std::string(64, 'x')), HasSubstr("ends within its metadata"));
  EXPECT_THAT(error_of_gguf(list(raw<std::uint32_t>(4) + raw(std::uint64_t{1} << 62))), HasSubstr("claims 4611686018427387904 array elements"));
  EXPECT_THAT(error_of_gguf(list(nested + raw<std::uint32_t>(0) + raw<std::uint64_t>(0))), HasSubstr("nested more than 4 deep"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("x", 13, "")}, {})), HasSubstr("unknown type 13"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("x", 1u), gguf_pair("x", 1u)}, {})), HasSubstr("the metadata key 'x' twice"));
}

TEST(Gguf, TensorsThatAreNotTrueToTheFileAreRefused) {
  const auto block = half(1) + nibbles();
  const auto shaped = [&](std::vector<std::uint64_t> sizes, std::uint32_t type = 0) { return error_of_gguf(gguf({}, {{"t", std::move(sizes), type, floats({1, 2})}})); };
  const auto file = gguf({}, {{"a", {8}, 0, floats({1, 2, 3, 4, 5, 6, 7, 8})}, {"b", {8}, 0, floats({1, 2, 3, 4, 5, 6, 7, 8})}});
  auto overlapping = file, misaligned = file;
  const auto second_offset = file.find(gguf_text("b")) + 9 + 4 + 8 + 4;
  overlapping.replace(second_offset, 8, raw<std::uint64_t>(0));
  misaligned.replace(second_offset, 8, raw<std::uint64_t>(33));

  EXPECT_THAT(shaped({}), HasSubstr("tensor 't' claims 0 dimensions"));
  EXPECT_THAT(shaped({1, 1, 1, 1, 2}), HasSubstr("tensor 't' claims 5 dimensions"));
  EXPECT_THAT(shaped({0}), HasSubstr("cannot have the shape [0] as F32"));
  EXPECT_THAT(shaped({UINT64_MAX}), HasSubstr("cannot have the shape [-1] as F32"));
  EXPECT_THAT(shaped({std::uint64_t{1} << 32, std::uint64_t{1} << 32}), HasSubstr("cannot have the shape"));
  EXPECT_THAT(shaped({std::uint64_t{1} << 62}), HasSubstr("reaches beyond the"));
  EXPECT_THAT(shaped({33}, 2), HasSubstr("cannot have the shape [33] as Q4_0"));
  EXPECT_THAT(shaped({9}), HasSubstr("reaches beyond the 32 bytes of tensor data; the file is truncated"));
  EXPECT_THAT(shaped({2}, 12), HasSubstr("is stored as Q4_K, which is not supported; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0"));
  EXPECT_THAT(shaped({2}, 99), HasSubstr("is stored as number 99"));
  EXPECT_THAT(error_of_gguf(overlapping), HasSubstr("overlaps the one before it"));
  EXPECT_THAT(error_of_gguf(misaligned), HasSubstr("begins at byte 33, which is not aligned to 32"));
  EXPECT_THAT(error_of_gguf(gguf({}, {{"t", {32}, 2, block}, {"t", {32}, 2, block}})), HasSubstr("two tensors named 't'"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("general.alignment", 48u)}, {})), HasSubstr("general.alignment 48; it must be a power of two"));
  EXPECT_THAT(error_of_gguf(gguf({gguf_pair("general.alignment", 0u)}, {})), HasSubstr("general.alignment 0"));
}

std::vector<std::string> llama_pairs(const std::string& without = "") {
  std::vector<std::string> pairs{gguf_pair("general.architecture", "llama")};
  const std::pair<const char*, std::uint32_t> numbers[] = {
      {"embedding_length", 8}, {"feed_forward_length", 4}, {"block_count", 1}, {"context_length", 16}, {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
  for (const auto& [key, value] : numbers)
    if (key != without) pairs.push_back(gguf_pair(std::string("llama.") + key, value));
  pairs.push_back(gguf_pair("llama.attention.layer_norm_rms_epsilon", 1e-5f));
  pairs.push_back(gguf_pair("tokenizer.ggml.bos_token_id", 1u));
  return pairs;
}

std::vector<GgufTensor> llama_tensors() {
  std::vector<float> numbers(64);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i / 8);  // each row holds its number
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

  const auto rows = [&](const char* name) { return weights->read(name).select(1, 0).to(at::kLong); };
  EXPECT_TRUE(at::equal(rows("model.layers.0.self_attn.q_proj.weight"), at::tensor({0, 2, 1, 3, 4, 6, 5, 7}, at::kLong)));
  EXPECT_TRUE(at::equal(rows("model.layers.0.self_attn.k_proj.weight"), at::tensor({0, 2, 1, 3}, at::kLong)));
  EXPECT_TRUE(at::equal(rows("model.embed_tokens.weight"), at::tensor({0, 1, 2}, at::kLong)));
  EXPECT_TRUE(weights->contains("model.norm.weight"));
}

TEST(LlamaNames, TheConfigIsMadeFromTheMetadata) {
  TemporaryFolder folder;
  write_bytes(folder / "x.gguf", gguf(llama_pairs(), llama_tensors()));

  const auto config = huggingface_config(GgufFile(folder / "x.gguf"));

  EXPECT_EQ(config, nlohmann::json::parse(R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":4,
    "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":4,"hidden_act":"silu","max_position_embeddings":16,
    "rope_theta":10000.0,"rms_norm_eps":1e-05,"vocab_size":3,"attention_bias":false,"mlp_bias":false,"tie_word_embeddings":true,
    "torch_dtype":"float32","bos_token_id":1})"));
}

TEST(LlamaNames, WhatIsNotALlamaIsRefused) {
  TemporaryFolder folder;
  const auto error = [&](const std::vector<std::string>& pairs, const std::vector<GgufTensor>& tensors) {
    write_bytes(folder / "x.gguf", gguf(pairs, tensors));
    return error_of([&] {
      huggingface_config(GgufFile(folder / "x.gguf"));
      huggingface_weights(std::make_unique<GgufFile>(folder / "x.gguf"));
    });
  };
  auto scaled = llama_pairs();
  scaled.push_back(gguf_pair("llama.rope.scaling.type", "yarn"));
  auto experts = llama_tensors();
  experts.push_back({"blk.0.ffn_gate_exps.weight", {1}, 0, floats({1})});
  auto uneven = llama_tensors();
  uneven[1].sizes = {8, 7};

  EXPECT_THAT(error({}, {}), HasSubstr("does not say its architecture"));
  EXPECT_THAT(error({gguf_pair("general.architecture", "mamba")}, {}), HasSubstr("architecture 'mamba'; GGUF files are supported for: llama"));
  EXPECT_THAT(error(llama_pairs("block_count"), llama_tensors()), HasSubstr("as 'llama.block_count'"));
  EXPECT_THAT(error(llama_pairs(), {}), HasSubstr("has no tensor 'token_embd.weight'"));
  EXPECT_THAT(error(scaled, llama_tensors()), HasSubstr("uses scaled rotary embeddings"));
  EXPECT_THAT(error(llama_pairs(), experts), HasSubstr("tensor 'blk.0.ffn_gate_exps.weight' has no place"));
  write_bytes(folder / "x.gguf", gguf(llama_pairs(), uneven));
  EXPECT_THAT(error_of([&] { huggingface_weights(std::make_unique<GgufFile>(folder / "x.gguf"))->read("model.layers.0.self_attn.q_proj.weight"); }),
              HasSubstr("of shape [7, 8] cannot be divided among 2 heads"));
}

TEST(Gguf, RandomDamageIsReadOrRefusedNeverACrash) {
  auto tensors = llama_tensors();
  tensors.push_back({"blk.0.attn_v.weight", {32}, 3, half(1) + half(0) + nibbles()});

  fuzz(gguf(llama_pairs(), tensors), [](const auto& path) {
    auto file = std::make_unique<GgufFile>(path);
    huggingface_config(*file);
    const auto source = huggingface_weights(std::move(file));
    for (const auto& info : source->tensors()) source->read(info.name).sum();
  });
}

}  // namespace
