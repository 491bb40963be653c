#include "parallel/mpi.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "parallel/under_way.hpp"

namespace attune {
namespace parallel {
namespace {
std::atomic<int> entered{0};
}  // namespace

int collectives_entered() { return entered + waiting_on_devices(); }
InCollective::InCollective() { ++entered; }
InCollective::InCollective(const Comm& comm, Collective kind, std::size_t bytes) : InCollective() {
  if (comm.size() > 1) comm.impl().traffic->add(kind, bytes);
}
InCollective::~InCollective() { --entered; }

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<std::size_t>(length));
  return all.substr(0, all.find(','));
}

TrafficByKind traffic_of_rank(const Comm& comm) {
  return Traffic::by_kind(comm.impl().traffic->numbers());
}

TrafficByKind traffic_of_ranks(const Comm& comm) {
  auto numbers = comm.impl().traffic->numbers();
  sum_in_place(numbers, comm);
  return Traffic::by_kind(numbers);
}

void sum_in_place(std::vector<double>& values, const Comm& comm) {
  if (comm.size() == 1) return;
  const InCollective waiting(comm, Collective::all_reduce, values.size() * sizeof(double));
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE,
                          MPI_SUM, mpi_handle(comm)),
            "MPI_Allreduce");
}

}  // namespace parallel

namespace {

bool mpi_is_up() {
  int started = 0;
  int ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  return started && !ended;
}

template <class T>
T all_reduce(const Comm& comm, T value, MPI_Datatype type, MPI_Op op) {
  const parallel::InCollective waiting(comm, parallel::Collective::all_reduce, sizeof value);
  if (comm.size() > 1)
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, &value, 1, type, op, mpi_handle(comm)), "MPI_Allreduce");
  return value;
}

/// Of this process among all that MPI started.
struct Place {
  int rank = 0;
  int size = 1;
};

Place place_in_world() {
  Place place;
  if (!mpi_is_up()) return place;
  MPI_Comm_rank(MPI_COMM_WORLD, &place.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &place.size);
  return place;
}

/// The rank in MPI_COMM_WORLD of a rank of the group.
int rank_in_world(const Comm& comm, int rank) {
  if (!mpi_is_up() || comm.impl().handle == MPI_COMM_NULL) return place_in_world().rank;
  MPI_Group ours = MPI_GROUP_NULL;
  MPI_Group world = MPI_GROUP_NULL;
  MPI_Comm_group(comm.impl().handle, &ours);
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  int found = 0;
  MPI_Group_translate_ranks(ours, 1, &rank, world, &found);
  MPI_Group_free(&ours);
  MPI_Group_free(&world);
  return found;
}

enum Status : int { succeeded, user_mistake, fault };

struct Outcome {
  Status status = succeeded;
  std::string text;
};

Outcome attempt(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const Error& error) {
    return {user_mistake, error.what()};
  } catch (const std::exception& error) {
    return {fault, error.what()};
  } catch (...) {
    return {fault, "an object that is not a std::exception was thrown"};
  }
}

std::string to_message(const Outcome& outcome) {
  return std::to_string(outcome.status) + outcome.text;
}
Outcome from_message(const std::string& message) {
  return {static_cast<Status>(message.at(0) - '0'), message.substr(1)};
}

void rethrow(const Outcome& outcome, const Comm& comm) {
  const Agreement who{comm.size() == place_in_world().size, comm.root()};
  if (outcome.status == user_mistake) throw AgreedError(outcome.text, who);
  if (outcome.status == fault) throw AgreedFault(outcome.text, who);
}

/// The lowest rank's failure; that rank is named unless every rank of the group says the same.
Outcome first_failure(const std::vector<std::string>& messages, const Comm& comm) {
  const auto first = std::find_if(messages.begin(), messages.end(), [](const auto& message) {
    return from_message(message).status != succeeded;
  });
  const bool unanimous = std::all_of(messages.begin(), messages.end(),
                                     [&](const auto& message) { return message == *first; });
  auto failure = from_message(*first);
  const auto rank = rank_in_world(comm, static_cast<int>(first - messages.begin()));
  if (!unanimous)
    failure.text = fmt::format("rank {} of {}: {}", rank, place_in_world().size, failure.text);
  return failure;
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Fault(fmt::format("{} failed: {}", call, std::string(text, length)));
}

namespace {

bool is_set(const char* name) { return std::getenv(name) != nullptr; }

/// Environment variables for as long as this stands, where the user has set none; children of this
/// process see nothing of them.
class Preset {
 public:
  void set(const char* name, const char* value) {
    if (!is_set(name)) {
      setenv(name, value, 0);
      set_.push_back(name);
    }
  }
  ~Preset() {
    for (const char* name : set_) unsetenv(name);
  }

 private:
  std::vector<const char*> set_;
};

/// mpirun's ranks, all on this node.
bool are_on_one_node() {
  const char* all = std::getenv("OMPI_COMM_WORLD_SIZE");
  const char* here = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  return all && here && std::strcmp(all, here) == 0;
}

bool has_launcher() {
  return is_set("OMPI_COMM_WORLD_SIZE") || is_set("PMIX_NAMESPACE") || is_set("PMIX_RANK") ||
         is_set("PMI_RANK") || is_set("PMI_FD");
}

/// Ranks that talk to none beyond this node open no libraries of networks. A process of its own
/// talks to no other: it needs no daemon of Open MPI's beside it either, and not the machine's
/// topology, which Open MPI would read from a hundred files.
void open_what_is_needed(Preset& preset) {
  // they look for displays, and open 25 libraries of X11's and OpenCL's for that
  preset.set("HWLOC_PLUGINS_BLACKLIST", "hwloc_gl.so,hwloc_opencl.so");
  if (!has_launcher() || are_on_one_node()) preset.set("OMPI_MCA_pml", "ob1");
  if (has_launcher()) return;
  preset.set("OMPI_MCA_ess_singleton_isolated", "1");
  // All such processes of a user would share one folder, which the first to end removes.
  preset.set("OMPI_MCA_orte_create_session_dirs", "0");
  preset.set("OMPI_MCA_btl", "self");
  preset.set("OMPI_MCA_coll", "basic,libnbc,self");
  preset.set("HWLOC_COMPONENTS", "no_os,stop");
}

}  // namespace

MpiSession::MpiSession() {
  Preset preset;
  open_what_is_needed(preset);
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_MULTIPLE) {
    MPI_Finalize();
    fail(
        "this MPI library does not support MPI_THREAD_MULTIPLE; use one built with thread support, "
        "such as Debian's Open MPI 4");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
}

MpiSession::~MpiSession() { MPI_Finalize(); }

Comm world() {
  ATTUNE_ASSERT(mpi_is_up(), "MPI is not up: there is no MpiSession");
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  return Comm(std::make_shared<Comm::Impl>(copy, std::make_shared<parallel::Traffic>()));
}

Comm duplicate(const Comm& comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(mpi_handle(comm), &copy), "MPI_Comm_dup");
  return Comm(std::make_shared<Comm::Impl>(copy, comm.impl().traffic));
}

MPI_Comm mpi_handle(const Comm& comm) {
  const auto handle = comm.impl().handle;
  return handle == MPI_COMM_NULL && mpi_is_up() ? MPI_COMM_SELF : handle;
}

void abort_all(ExitCode code, const std::string& message) {
  std::fflush(stdout);
  const auto place = place_in_world();
  const auto line = fmt::format("[rank {}/{}] {}\n", place.rank, place.size, message);
  std::fwrite(line.data(), 1, line.size(), stderr);  // in one piece, so that ranks do not mix
  std::fflush(stderr);
  if (mpi_is_up()) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

Comm::Impl::Impl() : traffic(std::make_shared<parallel::Traffic>()) {}

Comm::Impl::Impl(MPI_Comm owned, std::shared_ptr<parallel::Traffic> counted)
    : handle(owned), traffic(std::move(counted)) {
  MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN);
  MPI_Comm_rank(handle, &rank);
  MPI_Comm_size(handle, &size);
}

Comm::Impl::~Impl() {
  if (handle != MPI_COMM_NULL && mpi_is_up()) MPI_Comm_free(&handle);
}

Comm::Comm() : impl_(std::make_shared<Impl>()) {}
int Comm::rank() const { return impl_->rank; }
int Comm::size() const { return impl_->size; }

Comm Comm::split(int color, int key) const {
  ATTUNE_ASSERT(color >= 0, "color {}", color);
  if (size() == 1) return *this;
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(impl_->handle, color, key, &part), "MPI_Comm_split");
  return Comm(std::make_shared<Impl>(part, impl_->traffic));
}

Comm Comm::split_by_node() const {
  if (size() == 1) return *this;
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(impl_->handle, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &part),
            "MPI_Comm_split_type");
  return Comm(std::make_shared<Impl>(part, impl_->traffic));
}

void Comm::barrier() const {
  const parallel::InCollective waiting(*this, parallel::Collective::barrier, 0);
  if (size() > 1) check_mpi(MPI_Barrier(impl_->handle), "MPI_Barrier");
}

void Comm::broadcast(void* bytes, std::size_t count, int from) const {
  if (size() == 1) return;
  const parallel::InCollective waiting(*this, parallel::Collective::broadcast,
                                       rank() == from ? count : 0);
  for (std::size_t done = 0; done < count; done += parallel::largest_message) {
    const auto piece = static_cast<int>(std::min(count - done, parallel::largest_message));
    check_mpi(
        MPI_Bcast(static_cast<std::byte*>(bytes) + done, piece, MPI_BYTE, from, impl_->handle),
        "MPI_Bcast");
  }
}

std::string Comm::broadcast(std::string text, int from) const {
  auto length = static_cast<std::uint64_t>(text.size());
  broadcast(&length, sizeof length, from);
  text.resize(length);
  broadcast(text.data(), text.size(), from);
  return text;
}

double Comm::sum(double value) const { return all_reduce(*this, value, MPI_DOUBLE, MPI_SUM); }
std::int64_t Comm::sum(std::int64_t value) const {
  return all_reduce(*this, value, MPI_INT64_T, MPI_SUM);
}
std::int64_t Comm::max(std::int64_t value) const {
  return all_reduce(*this, value, MPI_INT64_T, MPI_MAX);
}

std::vector<std::string> Comm::gather(const std::string& text) const {
  if (size() == 1) return {text};
  const parallel::InCollective waiting(*this, parallel::Collective::all_gather, text.size());
  const auto mine = static_cast<std::int64_t>(text.size());
  std::vector<std::int64_t> lengths(size());
  check_mpi(MPI_Allgather(&mine, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, impl_->handle),
            "MPI_Allgather");
  const auto total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  ATTUNE_ASSERT(total <= static_cast<std::int64_t>(parallel::largest_message),
                "{} bytes of text over all ranks", total);

  const std::vector<int> counts(lengths.begin(), lengths.end());
  std::vector<int> offsets(counts.size(), 0);
  std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
  std::string all(static_cast<std::size_t>(total), '\0');
  check_mpi(MPI_Allgatherv(text.data(), counts[rank()], MPI_BYTE, all.data(), counts.data(),
                           offsets.data(), MPI_BYTE, impl_->handle),
            "MPI_Allgatherv");
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < counts.size(); ++i)
    texts.push_back(all.substr(offsets[i], counts[i]));
  return texts;
}

void Comm::agree(const std::function<void()>& work) const {
  const auto mine = attempt(work);
  if (max(mine.status) != succeeded) rethrow(first_failure(gather(to_message(mine)), *this), *this);
}

void on_root(const Comm& comm, const std::function<void()>& work) {
  const auto outcome = comm.root() ? attempt(work) : Outcome{};
  rethrow(from_message(comm.broadcast(to_message(outcome))), comm);
}

}  // namespace attune
