// What parallel/nccl_library.hpp declares, compared with NCCL's own header and library. No GPU is
// needed: none is used.
#include <gtest/gtest.h>
#include <nccl.h>

#include <algorithm>

#include "device/device.hpp"
#include "parallel/nccl.hpp"
#include "parallel/nccl_library.hpp"

namespace attune::parallel {
namespace {

static_assert(sizeof(nccl::UniqueId) == sizeof(ncclUniqueId));
static_assert(ncclSuccess == 0 && ncclInProgress == 7);
static_assert(int{nccl::int8} == ncclInt8 && int{nccl::uint8} == ncclUint8);
static_assert(int{nccl::int32} == ncclInt32 && int{nccl::uint32} == ncclUint32);
static_assert(int{nccl::int64} == ncclInt64 && int{nccl::uint64} == ncclUint64);
static_assert(int{nccl::float32} == ncclFloat32 && int{nccl::float64} == ncclFloat64);
static_assert(int{nccl::sum} == ncclSum && int{nccl::product} == ncclProd);
static_assert(int{nccl::max} == ncclMax && int{nccl::min} == ncclMin);

/// A type of ours as NCCL's header calls it.
template <class T>
struct Theirs {
  using Type = T;
};
template <>
struct Theirs<nccl::UniqueId> {
  using Type = ncclUniqueId;
};
template <>
struct Theirs<nccl::UniqueId*> {
  using Type = ncclUniqueId*;
};
template <>
struct Theirs<nccl::Communicator> {
  using Type = ncclComm_t;
};
template <>
struct Theirs<nccl::Communicator*> {
  using Type = ncclComm_t*;
};
template <>
struct Theirs<nccl::DataType> {
  using Type = ncclDataType_t;
};
template <>
struct Theirs<nccl::Operation> {
  using Type = ncclRedOp_t;
};
template <>
struct Theirs<nccl::Stream> {
  using Type = cudaStream_t;
};

/// Buffers are void* as streams are, and results are integers: these are compared by their size.
template <class Ours, class Header>
constexpr bool is_parameter = std::is_same_v<typename Theirs<Ours>::Type, Header> ||
                              (std::is_pointer_v<Ours> && std::is_pointer_v<Header>);

template <class Result, class... Ours, class Declared, class... Header>
constexpr bool agree(Result (*)(Ours...), Declared (*)(Header...)) {
  static_assert(sizeof...(Ours) == sizeof...(Header));
  return sizeof(Result) == sizeof(Declared) && (is_parameter<Ours, Header> && ...);
}

#define EXPECT_AGREES(name) \
  static_assert(agree(decltype(nccl::Library::name){}, decltype(&::name){}))
EXPECT_AGREES(ncclGetVersion);
EXPECT_AGREES(ncclGetLastError);
EXPECT_AGREES(ncclGetUniqueId);
EXPECT_AGREES(ncclCommInitRank);
EXPECT_AGREES(ncclCommFinalize);
EXPECT_AGREES(ncclCommDestroy);
EXPECT_AGREES(ncclGroupStart);
EXPECT_AGREES(ncclGroupEnd);
EXPECT_AGREES(ncclAllReduce);
EXPECT_AGREES(ncclReduceScatter);
EXPECT_AGREES(ncclReduce);
EXPECT_AGREES(ncclAllGather);
EXPECT_AGREES(ncclBroadcast);
EXPECT_AGREES(ncclSend);
EXPECT_AGREES(ncclRecv);

TEST(NcclLibrary, IsTheOneThatLibTorchBrings) {
  ASSERT_NE(nccl::library_of(c10::kCUDA), nullptr);
  const auto version = nccl_version(c10::kCUDA);
  EXPECT_TRUE(version.starts_with("NCCL 2.")) << version;
  int code = 0;
  EXPECT_EQ(nccl::library_of(c10::kCUDA)->ncclGetVersion(&code), ncclSuccess);
  EXPECT_GE(code, 21400) << "ncclCommFinalize came with 2.14";
}

TEST(NcclLibrary, MakesIdentifiersWithoutAGpu) {
  nccl::UniqueId first{};
  nccl::UniqueId second{};
  const auto* library = nccl::library_of(c10::kCUDA);
  ASSERT_EQ(library->ncclGetUniqueId(&first), ncclSuccess);
  ASSERT_EQ(library->ncclGetUniqueId(&second), ncclSuccess);
  EXPECT_FALSE(std::ranges::equal(first.bytes, second.bytes));
}

TEST(NcclLibrary, SaysWhyItCannotConnectWithoutAGpu) {
  if (device::count() > 0) GTEST_SKIP() << "there is a GPU";
  const auto* library = nccl::library_of(c10::kCUDA);
  nccl::UniqueId id{};
  ASSERT_EQ(library->ncclGetUniqueId(&id), ncclSuccess);
  nccl::Communicator communicator = nullptr;
  const auto code = library->ncclCommInitRank(&communicator, 1, id, 0);
  EXPECT_NE(code, ncclSuccess);
  EXPECT_NE(std::string(library->ncclGetErrorString(code)), "no error");
}

}  // namespace
}  // namespace attune::parallel
