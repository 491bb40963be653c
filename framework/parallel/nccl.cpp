#include "parallel/nccl.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>

#include "device/device.hpp"
#include "device/stream.hpp"
#include "parallel/mpi.hpp"
#include "parallel/nccl_library.hpp"
#include "parallel/under_way.hpp"

namespace attune::parallel {
namespace nccl {
namespace {

std::optional<Library> load(c10::DeviceType type) {
  const auto find = device::collective_functions(type);
  if (!find) return std::nullopt;
  Library library{};
  bool is_whole = true;
  const auto take = [&](auto& function, const char* name) {
    void* const found = find(name);
    std::memcpy(&function, &found, sizeof found);
    is_whole = is_whole && found != nullptr;
  };
#define ATTUNE_TAKE(Returned, name, ...) take(library.name, #name);
  ATTUNE_NCCL_FUNCTIONS(ATTUNE_TAKE)
#undef ATTUNE_TAKE
  return is_whole ? std::optional(library) : std::nullopt;
}

}  // namespace

const Library* library_of(c10::DeviceType type) {
  static std::mutex mutex;
  static std::map<c10::DeviceType, std::optional<Library>> libraries;
  const std::lock_guard lock(mutex);
  const auto found = libraries.find(type);
  const auto& library =
      found != libraries.end() ? found->second : libraries.emplace(type, load(type)).first->second;
  return library ? &*library : nullptr;
}

}  // namespace nccl

namespace {

using nccl::Library;

nccl::DataType data_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return nccl::float32;
    case at::kDouble: return nccl::float64;
    case at::kChar: return nccl::int8;
    case at::kByte: return nccl::uint8;
    case at::kInt: return nccl::int32;
    case at::kUInt32: return nccl::uint32;
    case at::kLong: return nccl::int64;
    case at::kUInt64: return nccl::uint64;
    default:
      throw Fault(
          fmt::format("tensors of type {} cannot be reduced over NCCL", c10::toString(type)));
  }
}

nccl::Operation operation(Reduction op) {
  switch (op) {
    case c10d::ReduceOp::SUM: return nccl::sum;
    case c10d::ReduceOp::PRODUCT: return nccl::product;
    case c10d::ReduceOp::MIN: return nccl::min;
    case c10d::ReduceOp::MAX: return nccl::max;
    default:
      throw Fault(fmt::format("reduction {} is not among those over NCCL: sum, product, min, max",
                              static_cast<int>(op)));
  }
}

bool tells_of_memory(const std::string& words) {
  return words.find("out of memory") != std::string::npos;
}

/// "invalid usage: Duplicate GPU detected"
std::string words_of(const Library& library, nccl::Result code, nccl::Communicator communicator) {
  std::string words = library.ncclGetErrorString(code);
  const char* const last = library.ncclGetLastError(communicator);
  if (last && *last) words += fmt::format(": {}", last);
  return words;
}

std::string setting(const char* name) {
  const char* const value = std::getenv(name);
  return fmt::format("{}{}", name, value ? fmt::format("={}", value) : " (not set)");
}

class Nccl final : public Collectives {
 public:
  Nccl(const Library& library, const Comm& comm, c10::Device device, const nccl::UniqueId& id)
      : Collectives(comm), library_(library), device_(device) {
    device::make_current(device);
    const InCollective waiting;
    const auto code =
        library.ncclCommInitRank(&communicator_, this->comm().size(), id, this->comm().rank());
    if (code != 0) refuse(words_of(library, code, nullptr));
    errors_.emplace([this] { return error(); });
  }

  ~Nccl() override {
    errors_.reset();  // first: the watchdog's thread asks the communicator
    // A rank that fails leaves the others in the middle of their work, and ends with them.
    if (std::uncaught_exceptions() > 0) return;
    device::make_current(device_);
    const InCollective waiting;
    library_.ncclCommFinalize(communicator_);
    library_.ncclCommDestroy(communicator_);
  }

  void all_reduce(const at::Tensor& tensor, Reduction op) const override {
    const InCollective counted(comm(), Collective::all_reduce, tensor.nbytes());
    auto* const data = tensor.data_ptr();
    check(library_.ncclAllReduce(data, data, count(tensor), data_type(tensor.scalar_type()),
                                 operation(op), communicator_, stream()),
          "ncclAllReduce");
  }

  void reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                      const std::vector<std::int64_t>& sizes, Reduction op) const override {
    const InCollective counted(comm(), Collective::reduce_scatter, input.nbytes());
    const auto type = data_type(input.scalar_type());
    if (are_equal(sizes))
      return check(
          library_.ncclReduceScatter(input.const_data_ptr(), output.data_ptr(), count(output), type,
                                     operation(op), communicator_, stream()),
          "ncclReduceScatter");
    const auto blocks = input.split_with_sizes(sizes);
    as_group([&] {
      for (int rank = 0; rank < comm().size(); ++rank) {
        const auto& block = blocks[static_cast<std::size_t>(rank)];
        if (block.numel() > 0)
          check(library_.ncclReduce(block.const_data_ptr(), output.data_ptr(), count(block), type,
                                    operation(op), rank, communicator_, stream()),
                "ncclReduce");
      }
    });
  }

  void all_gather(const at::Tensor& output, const at::Tensor& input,
                  const std::vector<std::int64_t>& sizes) const override {
    const InCollective counted(comm(), Collective::all_gather, input.nbytes());
    if (are_equal(sizes))
      return check(library_.ncclAllGather(input.const_data_ptr(), output.data_ptr(), input.nbytes(),
                                          nccl::uint8, communicator_, stream()),
                   "ncclAllGather");
    const auto blocks = output.split_with_sizes(sizes);
    as_group([&] {
      for (int rank = 0; rank < comm().size(); ++rank) {
        const auto& block = blocks[static_cast<std::size_t>(rank)];
        if (block.numel() > 0) send_from(rank, input.const_data_ptr(), block);
      }
    });
  }

  void all_to_all(const std::vector<at::Tensor>& outputs,
                  const std::vector<at::Tensor>& inputs) const override {
    std::size_t bytes = 0;
    for (const auto& input : inputs) bytes += input.nbytes();
    const InCollective counted(comm(), Collective::all_to_all, bytes);
    const auto here = static_cast<std::size_t>(comm().rank());
    outputs[here].copy_(inputs[here]);
    as_group([&] {
      for (std::size_t rank = 0; rank < outputs.size(); ++rank)
        if (rank != here) exchange(static_cast<int>(rank), outputs[rank], inputs[rank]);
    });
  }

  void broadcast(const at::Tensor& tensor, int from) const override {
    const bool is_source = comm().rank() == from;
    const InCollective counted(comm(), Collective::broadcast, is_source ? tensor.nbytes() : 0);
    send_from(from, tensor.const_data_ptr(), tensor);
  }

 private:
  [[noreturn]] void refuse(const std::string& words) const {
    if (tells_of_memory(words))
      fail(
          "NCCL cannot connect the {} ranks, because {} has no memory left for it ({}): end what "
          "else runs there, or sum over MPI with parallel.collectives = \"mpi\"",
          comm().size(), device_.str(), words);
    fail(
        "NCCL cannot connect the {} ranks ({}): name the network interfaces that connect the nodes "
        "in {} and {}, or sum over MPI with parallel.collectives = \"mpi\"; NCCL_DEBUG=INFO shows "
        "what NCCL tries",
        comm().size(), words, setting("NCCL_SOCKET_IFNAME"), setting("NCCL_IB_HCA"));
  }

  static std::size_t count(const at::Tensor& tensor) {
    return static_cast<std::size_t>(tensor.numel());
  }
  static bool are_equal(const std::vector<std::int64_t>& sizes) {
    return std::ranges::all_of(sizes, [&](auto size) { return size == sizes.front(); });
  }
  nccl::Stream stream() const { return device::native_stream(device_); }

  void check(nccl::Result code, const char* call) const {
    if (code != 0)
      throw Fault(fmt::format("{} failed: {}", call, words_of(library_, code, communicator_)));
  }

  /// Several calls as one: they cannot wait for each other.
  void as_group(const std::function<void()>& calls) const {
    check(library_.ncclGroupStart(), "ncclGroupStart");
    try {
      calls();
    } catch (...) {
      library_.ncclGroupEnd();  // or this thread's later calls would wait for it
      throw;
    }
    check(library_.ncclGroupEnd(), "ncclGroupEnd");
  }

  /// source: only of that rank.
  void send_from(int rank, const void* source, const at::Tensor& to) const {
    check(library_.ncclBroadcast(source, to.data_ptr(), to.nbytes(), nccl::uint8, rank,
                                 communicator_, stream()),
          "ncclBroadcast");
  }

  void exchange(int peer, const at::Tensor& output, const at::Tensor& input) const {
    if (input.numel() > 0)
      check(library_.ncclSend(input.const_data_ptr(), input.nbytes(), nccl::uint8, peer,
                              communicator_, stream()),
            "ncclSend");
    if (output.numel() > 0)
      check(library_.ncclRecv(output.data_ptr(), output.nbytes(), nccl::uint8, peer, communicator_,
                              stream()),
            "ncclRecv");
  }

  /// Of work that the device was given, such as a connection that broke.
  std::string error() const {
    nccl::Result code = 0;
    if (library_.ncclCommGetAsyncError(communicator_, &code) != 0) return {};
    constexpr nccl::Result in_progress = 7;
    if (code == 0 || code == in_progress) return {};
    return fmt::format("a sum over the ranks failed in NCCL: {}",
                       words_of(library_, code, communicator_));
  }

  const Library& library_;
  c10::Device device_;
  nccl::Communicator communicator_ = nullptr;
  std::optional<ErrorSource> errors_;
};

}  // namespace

std::string nccl_version(c10::DeviceType type) {
  const auto* const library = nccl::library_of(type);
  int code = 0;
  if (!library || library->ncclGetVersion(&code) != 0) return {};
  return fmt::format("NCCL {}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

std::unique_ptr<Collectives> make_nccl(const Comm& comm, c10::Device device) {
  if (comm.size() == 1) return nullptr;
  const auto* const library = device.is_cpu() ? nullptr : nccl::library_of(device.type());
  if (comm.sum(std::int64_t{library != nullptr}) < comm.size()) return nullptr;
  // Connections are made, and their memory is taken, now: not when the device is full.
  ::setenv("NCCL_RUNTIME_CONNECT", "0", /*overwrite=*/0);
  nccl::UniqueId id{};
  on_root(comm, [&] {
    if (const auto code = library->ncclGetUniqueId(&id); code != 0)
      fail("NCCL cannot start: {}", words_of(*library, code, nullptr));
  });
  comm.broadcast(&id, sizeof id);
  return std::make_unique<Nccl>(*library, comm, device, id);
}

}  // namespace attune::parallel
