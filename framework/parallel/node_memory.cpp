#include "parallel/node_memory.hpp"

#include <ATen/ATen.h>
#include <attune/error.hpp>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"

namespace attune::parallel {
namespace {

[[noreturn]] void refuse(const char* call) {
  throw std::system_error(errno, std::generic_category(), call);
}

class Descriptor {
 public:
  Descriptor(int number, const char* call) : number_(number) {
    if (number < 0) refuse(call);
  }
  ~Descriptor() { ::close(number_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return number_; }

 private:
  int number_;
};

class Mapping {
 public:
  Mapping(int file, std::size_t bytes, int flags)
      : bytes_(bytes), begin_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, file, 0)) {
    if (begin_ == MAP_FAILED) refuse("mmap");
  }
  ~Mapping() { ::munmap(begin_, bytes_); }

  /// As if it had been read: what a process holds does not depend on what it has read yet.
  void touch() const {
    if (::madvise(begin_, bytes_, MADV_POPULATE_READ) == 0) return;
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const auto* bytes = static_cast<const volatile std::byte*>(begin_);
    for (std::size_t at = 0; at < bytes_; at += page) static_cast<void>(bytes[at]);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  void* begin() const { return begin_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  void* begin_;
};

using SharedMapping = std::shared_ptr<const Mapping>;

void release(void* mapping) { delete static_cast<SharedMapping*>(mapping); }

/// Storage from this byte of the mapping on, which lives as long as its last storage.
c10::Storage storage_in(const SharedMapping& mapping, std::size_t offset, std::size_t bytes) {
  c10::DataPtr data(static_cast<std::byte*>(mapping->begin()) + offset, new SharedMapping(mapping),
                    &release, c10::kCPU);
  return {c10::Storage::use_byte_size_t(), bytes, std::move(data)};
}

at::Tensor tensor_in(const c10::Storage& storage, at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::empty({0}, at::TensorOptions(dtype)).set_(storage, 0, sizes);
}

/// Strict accounting charges shared pages to every process that maps them, and ends one that writes
/// where nothing is left.
void check_accounting() {
  std::ifstream setting("/proc/sys/vm/overcommit_memory");
  int mode = 0;
  if (setting >> mode && mode == 2)
    throw std::runtime_error("vm.overcommit_memory is 2, so it would be charged to every rank");
}

void seal(int file, int against) {
  if (::fcntl(file, F_ADD_SEALS, against) != 0) refuse("fcntl");
}

/// Zeros in memory.
std::unique_ptr<Descriptor> new_file(std::size_t bytes) {
  auto file = std::make_unique<Descriptor>(
      ::memfd_create("attune-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
  if (::ftruncate(*file, static_cast<off_t>(bytes)) != 0) refuse("ftruncate");
  seal(*file, F_SEAL_SHRINK | F_SEAL_GROW);
  return file;
}

/// A file in memory with these values, which nobody can change any more.
std::unique_ptr<Descriptor> file_of(const at::Tensor& values, at::ScalarType dtype,
                                    std::size_t bytes) {
  auto file = new_file(bytes);
  {
    const Mapping mapping(*file, bytes, MAP_SHARED);
    ::madvise(mapping.begin(), bytes, MADV_HUGEPAGE);  // where the kernel has them for such files
    at::from_blob(mapping.begin(), values.sizes(), at::TensorOptions(dtype)).copy_(values);
  }
  seal(*file, F_SEAL_SEAL | F_SEAL_WRITE);
  return file;
}

/// Where other processes of the node find the file, and what tells that it is this one: in another
/// PID namespace the path leads elsewhere.
struct Place {
  std::string path;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

Place place_of(int file) {
  struct stat status{};
  if (::fstat(file, &status) != 0) refuse("fstat");
  return {fmt::format("/proc/{}/fd/{}", ::getpid(), file), status.st_dev, status.st_ino};
}

/// access: O_RDONLY or O_RDWR.
std::unique_ptr<Descriptor> open_place(const Place& place, int access) {
  // Opening what is something else might wait, or do something.
  struct stat found{};
  const bool is_there = ::stat(place.path.c_str(), &found) == 0;
  if (!is_there || found.st_dev != place.device || found.st_ino != place.inode)
    throw std::runtime_error("the ranks of the node do not see each other's processes");
  return std::make_unique<Descriptor>(::open(place.path.c_str(), access | O_CLOEXEC),
                                      "open of another rank's memory");
}

std::string to_text(const Place& place) {
  return nlohmann::json{place.path, place.device, place.inode}.dump();
}

Place from_text(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json[0], json[1], json[2]};
}

/// The message of what work() throws, of the lowest rank on which it does; empty if none does.
template <class Work>
std::string failure_of(const Comm& comm, const Work& work) {
  std::string message;
  try {
    work();
  } catch (const std::exception& error) {
    message = error.what();
  }
  if (comm.max(static_cast<std::int64_t>(!message.empty())) == 0) return "";
  for (const auto& each : comm.gather(message))
    if (!each.empty()) return each;
  return "";
}

/// Calls use(file) on every rank, with the file that make() gives on the first one. Returns what
/// failed, the same on every rank; empty if nothing did.
template <class Make, class Use>
std::string with_file_of_first(const Comm& node, const Make& make, int access, const Use& use) {
  std::unique_ptr<Descriptor> file;
  std::string place;
  const auto first = failure_of(node, [&] {
    if (!node.root()) return;
    check_accounting();
    file = make();
    place = to_text(place_of(*file));
  });
  if (!first.empty()) return first;
  place = node.broadcast(place);
  // Agreeing also keeps the first rank's file open until all have opened it.
  return failure_of(node, [&] {
    if (!node.root()) file = open_place(from_text(place), access);
    use(*file);
  });
}

/// Where tensors lie in a file, each as a vector register wants it.
std::vector<std::size_t> offsets_of(const std::vector<at::Tensor>& tensors, std::size_t& bytes) {
  constexpr std::size_t alignment = 64;
  std::vector<std::size_t> offsets;
  bytes = 0;
  for (const auto& tensor : tensors) {
    offsets.push_back(bytes);
    bytes += (tensor.nbytes() + alignment - 1) / alignment * alignment;
  }
  return offsets;
}

}  // namespace

at::Tensor NodeMemory::copied(const at::Tensor& values, at::ScalarType dtype) const {
  at::Tensor mine;
  on_root(node_, [&] { mine = values.to(dtype).contiguous(); });
  return node_.size() == 1 ? mine : broadcast_tensor(mine, node_);
}

at::Tensor NodeMemory::shared(const at::Tensor& values, at::ScalarType dtype,
                              const std::vector<std::int64_t>& sizes) {
  const auto bytes =
      static_cast<std::size_t>(c10::multiply_integers(sizes)) * c10::elementSize(dtype);
  const auto make = [&] { return file_of(values, dtype, bytes); };
  at::Tensor tensor;
  obstacle_ = with_file_of_first(node_, make, O_RDONLY, [&](int file) {
    const auto mapping = std::make_shared<const Mapping>(file, bytes, MAP_PRIVATE | MAP_NORESERVE);
    mapping->touch();
    tensor = tensor_in(storage_in(mapping, 0, bytes), sizes, dtype);
  });
  return obstacle_.empty() ? tensor : at::Tensor();
}

at::Tensor NodeMemory::place(const at::Tensor& values, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (node_.size() == 1) return copied(values, dtype);
  std::string sizes_text;
  if (node_.root()) sizes_text = nlohmann::json(values.sizes().vec()).dump();
  const auto sizes =
      nlohmann::json::parse(node_.broadcast(sizes_text)).get<std::vector<std::int64_t>>();
  const auto bytes =
      static_cast<std::size_t>(c10::multiply_integers(sizes)) * c10::elementSize(dtype);
  if (is_worth_sharing(bytes) && obstacle_.empty())
    if (auto tensor = shared(values, dtype, sizes); tensor.defined()) return tensor;
  return copied(values, dtype);
}

std::vector<at::Tensor> NodeMemory::place_open(const std::vector<at::Tensor>& values) {
  const at::NoGradGuard no_grad;
  for (const auto& each : values)
    ATTUNE_ASSERT(each.is_non_overlapping_and_dense(), "a tensor {} has gaps",
                  c10::str(each.sizes()));
  std::size_t bytes = 0;
  const auto offsets = offsets_of(values, bytes);
  if (node_.size() == 1 || !obstacle_.empty() || bytes == 0) return {};
  const auto ranks = static_cast<std::size_t>(node_.size());
  const auto is_mine = [&](std::size_t offset) {
    return static_cast<int>(offset * ranks / bytes) == node_.rank();
  };
  std::vector<at::Tensor> placed;
  const auto make = [&] { return new_file(bytes); };
  obstacle_ = with_file_of_first(node_, make, O_RDWR, [&](int file) {
    const auto mapping = std::make_shared<const Mapping>(file, bytes, MAP_SHARED);
    ::madvise(mapping->begin(), bytes, MADV_HUGEPAGE);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto& own = values[i];
      placed.push_back(
          at::empty({0}, own.options().requires_grad(false))
              .set_(storage_in(mapping, offsets[i], own.nbytes()), 0, own.sizes(), own.strides()));
      if (is_mine(offsets[i])) placed.back().copy_(own);
    }
    mapping->touch();
  });
  return obstacle_.empty() ? placed : std::vector<at::Tensor>{};
}

bool NodeMemory::is_worth_sharing(std::size_t bytes) {
  return bytes >= 64 << 10;  // below, pages and a mapping of its own cost more
}

bool NodeMemory::holds(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() &&
         tensor.storage().data_ptr().get_deleter() == &release;
}

}  // namespace attune::parallel
