// The functions of NCCL 2 that Attune calls, as NCCL's header declares them; tests/cuda compares
// the two.
#pragma once
#include <c10/core/Device.h>

#include <cstddef>

namespace attune::parallel::nccl {

/// ncclUniqueId
struct UniqueId {
  char bytes[128];
};
/// ncclComm_t
using Communicator = struct CommunicatorImpl*;
/// ncclResult_t: 0 is success.
using Result = int;
/// ncclDataType_t
enum DataType : int {
  int8 = 0,
  uint8 = 1,
  int32 = 2,
  uint32 = 3,
  int64 = 4,
  uint64 = 5,
  float32 = 7,
  float64 = 8
};
/// ncclRedOp_t
enum Operation : int { sum = 0, product = 1, max = 2, min = 3 };
/// cudaStream_t, hipStream_t
using Stream = void*;

// The buffers of collectives: const void* sent, void* received, std::size_t count.
// clang-format off
#define ATTUNE_NCCL_FUNCTIONS(function)                                                            \
  function(Result, ncclGetVersion, int*)                                                           \
  function(const char*, ncclGetErrorString, Result)                                                \
  function(const char*, ncclGetLastError, Communicator)                                            \
  function(Result, ncclGetUniqueId, UniqueId*)                                                     \
  function(Result, ncclCommInitRank, Communicator*, int /*ranks*/, UniqueId, int /*rank*/)         \
  function(Result, ncclCommFinalize, Communicator)                                                 \
  function(Result, ncclCommDestroy, Communicator)                                                  \
  function(Result, ncclCommGetAsyncError, Communicator, Result*)                                   \
  function(Result, ncclGroupStart)                                                                 \
  function(Result, ncclGroupEnd)                                                                   \
  function(Result, ncclAllReduce, const void*, void*, std::size_t, DataType, Operation,            \
           Communicator, Stream)                                                                   \
  function(Result, ncclReduceScatter, const void*, void*, std::size_t, DataType, Operation,        \
           Communicator, Stream)                                                                   \
  function(Result, ncclReduce, const void*, void*, std::size_t, DataType, Operation, int /*root*/, \
           Communicator, Stream)                                                                   \
  function(Result, ncclAllGather, const void*, void*, std::size_t, DataType, Communicator, Stream) \
  function(Result, ncclBroadcast, const void*, void*, std::size_t, DataType, int /*root*/,         \
           Communicator, Stream)                                                                   \
  function(Result, ncclSend, const void*, std::size_t, DataType, int /*peer*/, Communicator,       \
           Stream)                                                                                 \
  function(Result, ncclRecv, void*, std::size_t, DataType, int /*peer*/, Communicator, Stream)
// clang-format on

struct Library {
#define ATTUNE_MEMBER(Returned, name, ...) Returned (*name)(__VA_ARGS__);
  ATTUNE_NCCL_FUNCTIONS(ATTUNE_MEMBER)
#undef ATTUNE_MEMBER
};

/// Null if no library serves devices of this kind, or if it lacks a function.
const Library* library_of(c10::DeviceType type);

}  // namespace attune::parallel::nccl
