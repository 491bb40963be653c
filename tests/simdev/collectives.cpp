#include "collectives.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "counters.hpp"
#include "device.hpp"
#include "memory.hpp"

namespace attune::simdev {
namespace {

constexpr int success = 0;
constexpr int system_error = 2;
constexpr int remote_error = 6;
constexpr std::size_t letter = 1 << 16;  // bytes
constexpr int most_ranks = 8;

/// A message from one rank to another, in shared memory that starts as zeros.
struct Mailbox {
  std::atomic<std::uint32_t> size;  // 0: empty
  char bytes[letter];
};

/// The mailboxes of every pair of ranks.
struct Office {
  std::atomic<int> arrived;
  Mailbox boxes[most_ranks][most_ranks];  // from, to
};

struct Communicator {
  Office* office;
  int rank;
  int size;
  Mailbox& to(int peer) const { return office->boxes[rank][peer]; }
  Mailbox& from(int peer) const { return office->boxes[peer][rank]; }
  int next() const { return (rank + 1) % size; }
  int previous() const { return (rank + size - 1) % size; }
};

bool is_wanted(const char* mode) {
  const char* const given = std::getenv("ATTUNE_SIM_COLLECTIVES");
  return given && std::strcmp(given, mode) == 0;
}

// ---- Messages

/// One way of an exchange, in letters.
struct Outgoing {
  Mailbox& box;
  const char* at;
  std::size_t left;
  bool advance() {
    if (left == 0 || box.size.load(std::memory_order_acquire) != 0) return false;
    const auto size = std::min(left, letter);
    std::memcpy(box.bytes, at, size);
    box.size.store(static_cast<std::uint32_t>(size), std::memory_order_release);
    count_to_ranks(static_cast<std::int64_t>(size));
    at += size;
    left -= size;
    return true;
  }
};

struct Incoming {
  Mailbox& box;
  std::size_t left;
  std::function<void(const char*, std::size_t)> take;  // in order
  bool advance() {
    const auto size = box.size.load(std::memory_order_acquire);
    if (left == 0 || size == 0) return false;
    take(box.bytes, size);
    box.size.store(0, std::memory_order_release);
    left -= size;
    return true;
  }
};

std::function<void(const char*, std::size_t)> into(void* memory) {
  return [at = static_cast<char*>(memory)](const char* bytes, std::size_t size) mutable {
    std::memcpy(at, bytes, size);
    at += size;
  };
}

/// All of them together: none waits for another.
void exchange(std::vector<Outgoing> outgoing, std::vector<Incoming> incoming) {
  const auto is_left = [](const auto& all) {
    return std::ranges::any_of(all, [](const auto& one) { return one.left > 0; });
  };
  while (is_left(outgoing) || is_left(incoming)) {
    bool moved = false;
    for (auto& one : outgoing) moved = one.advance() || moved;
    for (auto& one : incoming) moved = one.advance() || moved;
    if (!moved) std::this_thread::yield();
  }
}

// ---- Reductions

template <class T>
void reduce(T* into, const T* with, std::size_t count, int operation) {
  for (std::size_t i = 0; i < count; ++i) {
    switch (operation) {
      case 0: into[i] += with[i]; break;
      case 1: into[i] *= with[i]; break;
      case 2: into[i] = std::max(into[i], with[i]); break;
      default: into[i] = std::min(into[i], with[i]);
    }
  }
}

template <class T>
void reduce_bytes(char* into, const char* with, std::size_t bytes, int operation) {
  reduce(reinterpret_cast<T*>(into), reinterpret_cast<const T*>(with), bytes / sizeof(T),
         operation);
}

using Reduce = void (*)(char*, const char*, std::size_t, int);

struct Type {
  std::size_t size;
  Reduce reduce;
};

Type type_of(int type) {
  switch (type) {
    case 0: return {1, &reduce_bytes<std::int8_t>};
    case 1: return {1, &reduce_bytes<std::uint8_t>};
    case 2: return {4, &reduce_bytes<std::int32_t>};
    case 3: return {4, &reduce_bytes<std::uint32_t>};
    case 4: return {8, &reduce_bytes<std::int64_t>};
    case 5: return {8, &reduce_bytes<std::uint64_t>};
    case 7: return {4, &reduce_bytes<float>};
    case 8: return {8, &reduce_bytes<double>};
    default: return {0, nullptr};
  }
}

/// Adds what arrives to memory, whole elements at a time: letters are multiples of every type.
std::function<void(const char*, std::size_t)> reduced_into(char* memory, Type type, int operation) {
  return [=, at = memory](const char* bytes, std::size_t size) mutable {
    type.reduce(at, bytes, size, operation);
    at += size;
  };
}

// ---- Rings

/// Blocks of memory, one for each rank.
struct Blocks {
  char* begin;
  std::vector<std::size_t> offsets;  // of every block, and of the end
  char* at(int block) const { return begin + offsets[static_cast<std::size_t>(block)]; }
  std::size_t size(int block) const {
    const auto i = static_cast<std::size_t>(block);
    return offsets[i + 1] - offsets[i];
  }
};

Blocks blocks_of(void* memory, std::size_t count, std::size_t element, int ranks) {
  Blocks blocks{static_cast<char*>(memory), {}};
  for (int i = 0; i <= ranks; ++i)
    blocks.offsets.push_back(count * static_cast<std::size_t>(i) / static_cast<std::size_t>(ranks) *
                             element);
  return blocks;
}

/// Afterwards the rank's own block is reduced over all ranks.
void ring_reduce(const Communicator& c, const Blocks& blocks, Type type, int operation) {
  for (int step = 0; step < c.size - 1; ++step) {
    const int gives = (c.rank + 2 * c.size - 1 - step) % c.size;
    const int gets = (c.rank + 2 * c.size - 2 - step) % c.size;
    exchange({{c.to(c.next()), blocks.at(gives), blocks.size(gives)}},
             {{c.from(c.previous()), blocks.size(gets),
               reduced_into(blocks.at(gets), type, operation)}});
  }
}

/// Every rank has its own block; afterwards all.
void ring_gather(const Communicator& c, const Blocks& blocks) {
  for (int step = 0; step < c.size - 1; ++step) {
    const int gives = (c.rank + c.size - step) % c.size;
    const int gets = (c.rank + c.size - 1 - step) % c.size;
    exchange({{c.to(c.next()), blocks.at(gives), blocks.size(gives)}},
             {{c.from(c.previous()), blocks.size(gets), into(blocks.at(gets))}});
  }
}

// ---- Calls

/// Of memory that `stream` reads or writes in a call.
void note(const void* memory, void* stream, bool writes) {
  if (memory) note_use(memory, stream_of(stream), writes);
}

struct Message {
  const Communicator* communicator;
  void* memory;
  std::size_t bytes;
  int peer;
  bool is_sent;
};

thread_local int groups = 0;  // that are open
thread_local std::vector<Message> messages;
std::atomic<bool> is_broken{false};

int group_start() {
  ++groups;
  return success;
}

int group_end() {
  if (--groups > 0) return success;
  std::vector<Outgoing> outgoing;
  std::vector<Incoming> incoming;
  for (const auto& message : messages) {
    if (message.is_sent)
      outgoing.push_back({message.communicator->to(message.peer),
                          static_cast<const char*>(message.memory), message.bytes});
    else
      incoming.push_back(
          {message.communicator->from(message.peer), message.bytes, into(message.memory)});
  }
  messages.clear();
  exchange(std::move(outgoing), std::move(incoming));
  return success;
}

int add_message(Message message) {
  group_start();
  messages.push_back(message);
  return group_end();
}

/// The memory of a call, where it can be read and written.
void* prepare(const void* memory, void* stream, bool writes, const char* name) {
  finish(stream_of(stream));
  note(memory, stream, writes);
  count_operator(name);
  if (is_wanted("break")) is_broken = true;
  return accessible(memory);
}

int all_reduce(const void* send, void* receive, std::size_t count, int type, int operation,
               Communicator* c, void* stream) {
  if (send != receive) return system_error;  // Attune works in place
  auto* const memory = prepare(receive, stream, true, "ncclAllReduce");
  const auto blocks = blocks_of(memory, count, type_of(type).size, c->size);
  ring_reduce(*c, blocks, type_of(type), operation);
  ring_gather(*c, blocks);
  return success;
}

int reduce_scatter(const void* send, void* receive, std::size_t count, int type, int operation,
                   Communicator* c, void* stream) {
  const auto* const from =
      static_cast<const char*>(prepare(send, stream, false, "ncclReduceScatter"));
  note(receive, stream, true);
  const auto bytes = count * type_of(type).size;
  std::vector<char> all(from, from + bytes * static_cast<std::size_t>(c->size));
  const auto blocks =
      blocks_of(all.data(), count * static_cast<std::size_t>(c->size), type_of(type).size, c->size);
  ring_reduce(*c, blocks, type_of(type), operation);
  if (bytes > 0) std::memcpy(accessible(receive), blocks.at(c->rank), bytes);
  return success;
}

/// Along the ring, so that the root is the last to add.
int reduce_to(const void* send, void* receive, std::size_t count, int type, int operation, int root,
              Communicator* c, void* stream) {
  const auto* const from = static_cast<const char*>(prepare(send, stream, false, "ncclReduce"));
  const auto bytes = count * type_of(type).size;
  std::vector<char> sum(from, from + bytes);
  const bool is_first = c->rank == (root + 1) % c->size;
  if (!is_first)
    exchange({},
             {{c->from(c->previous()), bytes, reduced_into(sum.data(), type_of(type), operation)}});
  if (c->rank != root) {
    exchange({{c->to(c->next()), sum.data(), bytes}}, {});
    return success;
  }
  note(receive, stream, true);
  std::memcpy(accessible(receive), sum.data(), bytes);
  return success;
}

int all_gather(const void* send, void* receive, std::size_t count, int type, Communicator* c,
               void* stream) {
  const auto* const mine = prepare(send, stream, false, "ncclAllGather");
  note(receive, stream, true);
  const auto blocks = blocks_of(accessible(receive), count * static_cast<std::size_t>(c->size),
                                type_of(type).size, c->size);
  if (count > 0 && blocks.at(c->rank) != mine)
    std::memcpy(blocks.at(c->rank), mine, blocks.size(c->rank));
  ring_gather(*c, blocks);
  return success;
}

/// Along the ring.
int broadcast(const void* send, void* receive, std::size_t count, int type, int root,
              Communicator* c, void* stream) {
  const auto bytes = count * type_of(type).size;
  auto* const memory = prepare(receive, stream, true, "ncclBroadcast");
  if (c->rank == root) {
    if (send != receive) {
      note(send, stream, false);
      std::memcpy(memory, accessible(send), bytes);
    }
  } else {
    exchange({}, {{c->from(c->previous()), bytes, into(memory)}});
  }
  if (c->next() != root)
    exchange({{c->to(c->next()), static_cast<const char*>(memory), bytes}}, {});
  return success;
}

int send(const void* memory, std::size_t count, int type, int peer, Communicator* c, void* stream) {
  void* const at = prepare(memory, stream, false, "ncclSend");
  return add_message({c, at, count * type_of(type).size, peer, true});
}

int receive(void* memory, std::size_t count, int type, int peer, Communicator* c, void* stream) {
  void* const at = prepare(memory, stream, true, "ncclRecv");
  return add_message({c, at, count * type_of(type).size, peer, false});
}

// ---- Communicators

struct UniqueId {
  char bytes[128];
};

int get_unique_id(UniqueId* id) {
  static int number = 0;
  std::snprintf(id->bytes, sizeof id->bytes, "/attune-sim-%d-%d", getpid(), ++number);
  return success;
}

int init_rank(Communicator** communicator, int size, UniqueId id, int rank) {
  if (is_wanted("fail") || is_wanted("memory")) return system_error;
  const int file = shm_open(id.bytes, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(Office)) != 0) return system_error;
  void* const memory = mmap(nullptr, sizeof(Office), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return system_error;
  auto* const office = static_cast<Office*>(memory);
  ++office->arrived;
  while (office->arrived < size) std::this_thread::yield();
  if (rank == 0) shm_unlink(id.bytes);
  *communicator = new Communicator{office, rank, size};
  return success;
}

int finalize(Communicator*) { return success; }

/// The handle stays, so that a call with it afterwards is seen.
int destroy(Communicator* communicator) {
  munmap(communicator->office, sizeof(Office));
  communicator->office = nullptr;
  return success;
}

int get_async_error(Communicator* communicator, int* error) {
  if (!communicator->office) std::abort();
  *error = is_broken ? remote_error : success;
  return success;
}

int get_version(int* version) {
  *version = 20000;
  return success;
}

const char* error_string(int error) {
  return error == success        ? "no error"
         : error == remote_error ? "remote process exited"
                                 : "unhandled system error";
}

const char* last_error(Communicator*) {
  return is_wanted("fail")     ? "simulated: no route"
         : is_wanted("memory") ? "Cuda failure 2 'out of memory'"
                               : "";
}

}  // namespace

void* find_collective(const char* name) {
  const std::pair<const char*, void*> all[] = {
      {"ncclGetVersion", reinterpret_cast<void*>(&get_version)},
      {"ncclGetErrorString", reinterpret_cast<void*>(&error_string)},
      {"ncclGetLastError", reinterpret_cast<void*>(&last_error)},
      {"ncclGetUniqueId", reinterpret_cast<void*>(&get_unique_id)},
      {"ncclCommInitRank", reinterpret_cast<void*>(&init_rank)},
      {"ncclCommFinalize", reinterpret_cast<void*>(&finalize)},
      {"ncclCommDestroy", reinterpret_cast<void*>(&destroy)},
      {"ncclCommGetAsyncError", reinterpret_cast<void*>(&get_async_error)},
      {"ncclGroupStart", reinterpret_cast<void*>(&group_start)},
      {"ncclGroupEnd", reinterpret_cast<void*>(&group_end)},
      {"ncclAllReduce", reinterpret_cast<void*>(&all_reduce)},
      {"ncclReduceScatter", reinterpret_cast<void*>(&reduce_scatter)},
      {"ncclReduce", reinterpret_cast<void*>(&reduce_to)},
      {"ncclAllGather", reinterpret_cast<void*>(&all_gather)},
      {"ncclBroadcast", reinterpret_cast<void*>(&broadcast)},
      {"ncclSend", reinterpret_cast<void*>(&send)},
      {"ncclRecv", reinterpret_cast<void*>(&receive)},
  };
  for (const auto& [known, function] : all)
    if (std::strcmp(known, name) == 0) return function;
  return nullptr;
}

}  // namespace attune::simdev
