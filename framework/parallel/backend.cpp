#include "parallel/backend.hpp"

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Utils.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "device/device.hpp"
#include "device/stream.hpp"
#include "parallel/collectives.hpp"
#include "parallel/mpi.hpp"

namespace attune::parallel {
namespace {

template <class... Args>
void require(bool is_so, fmt::format_string<Args...> text, Args&&... args) {
  if (!is_so) throw Fault(fmt::format(text, std::forward<Args>(args)...));
}

void require_contiguous(const at::Tensor& output, const at::Tensor& input, const char* call) {
  require(output.is_contiguous() && input.is_contiguous(), "{}: tensors must be contiguous", call);
}

void require_one_type(const std::vector<at::Tensor>& tensors, at::ScalarType type,
                      const char* call) {
  for (const auto& tensor : tensors)
    require(tensor.scalar_type() == type, "{}: tensors of type {} and {} together", call,
            c10::toString(tensor.scalar_type()), c10::toString(type));
}

void require_count(std::size_t count, int ranks, const char* call) {
  require(std::cmp_equal(count, ranks), "{}: {} tensors for {} ranks", call, count, ranks);
}

std::vector<std::int64_t> numels(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> all;
  for (const auto& tensor : tensors) all.push_back(tensor.numel());
  return all;
}

at::Tensor flat(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> all;
  for (const auto& tensor : tensors) all.push_back(tensor.flatten());
  return at::cat(all);
}

/// Memory of the output's own where it can be written to in place, otherwise other memory; `give`
/// brings the result home.
class Receiver {
 public:
  Receiver(const at::Tensor& output, at::ScalarType type, bool is_shared) : output_(output) {
    const bool in_place = output.is_contiguous() && output.scalar_type() == type && !is_shared;
    buffer_ = in_place ? output
                       : at::empty(output.sizes(), output.options().dtype(type).memory_format(
                                                       at::MemoryFormat::Contiguous));
  }
  const at::Tensor& buffer() const { return buffer_; }
  void give() {
    if (!buffer_.is_same(output_)) output_.copy_(buffer_);
  }

 private:
  at::Tensor output_;
  at::Tensor buffer_;
};

void all_reduce(const Collectives& collectives, at::Tensor& tensor, Reduction op) {
  const auto buffer = tensor.to(reduced_as(tensor.scalar_type())).contiguous();
  collectives.all_reduce(buffer, op);
  if (!buffer.is_same(tensor)) tensor.copy_(buffer);
}

void broadcast(const Comm& comm, at::Tensor& tensor, int from) {
  const auto buffer = tensor.contiguous();
  comm.broadcast(buffer.data_ptr(), buffer.nbytes(), from);
  if (!buffer.is_same(tensor)) tensor.copy_(buffer);
}

/// input: the blocks of all ranks one behind another.
void reduce_scatter(const Collectives& collectives, const at::Tensor& output,
                    const at::Tensor& input, const std::vector<std::int64_t>& sizes, Reduction op) {
  require_one_type({input}, output.scalar_type(), "reduce_scatter");
  const auto mine = sizes[static_cast<std::size_t>(collectives.comm().rank())];
  require(mine == output.numel(), "reduce_scatter: an output of {} elements for blocks of {}",
          output.numel(), mine);
  Receiver receiver(output, reduced_as(output.scalar_type()), output.is_alias_of(input));
  collectives.reduce_scatter(receiver.buffer(), input.to(receiver.buffer().scalar_type()), sizes,
                             op);
  receiver.give();
}

void reduce_scatter_list(const Collectives& collectives, const at::Tensor& output,
                         const std::vector<at::Tensor>& inputs, Reduction op) {
  require_count(inputs.size(), collectives.comm().size(), "reduce_scatter");
  require_one_type(inputs, output.scalar_type(), "reduce_scatter");
  reduce_scatter(collectives, output, flat(inputs), numels(inputs), op);
}

void reduce_scatter_tensor(const Collectives& collectives, const at::Tensor& output,
                           const at::Tensor& input, Reduction op) {
  require_contiguous(output, input, "reduce_scatter");
  const auto ranks = collectives.comm().size();
  require(input.numel() == output.numel() * ranks,
          "reduce_scatter: an input of {} elements for {} ranks with outputs of {}", input.numel(),
          ranks, output.numel());
  reduce_scatter(collectives, output, input,
                 std::vector<std::int64_t>(static_cast<std::size_t>(ranks), output.numel()), op);
}

void all_gather_list(const Collectives& collectives, const std::vector<at::Tensor>& outputs,
                     const at::Tensor& input) {
  require_count(outputs.size(), collectives.comm().size(), "all_gather");
  require_one_type(outputs, input.scalar_type(), "all_gather");
  const auto sizes = numels(outputs);
  const auto mine = sizes[static_cast<std::size_t>(collectives.comm().rank())];
  require(mine == input.numel(), "all_gather: an input of {} elements for outputs of {}",
          input.numel(), mine);
  const auto all =
      at::empty({std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0})}, input.options());
  collectives.all_gather(all, input.contiguous(), sizes);
  std::int64_t begin = 0;
  for (const auto& output : outputs) {
    output.copy_(all.narrow(0, begin, output.numel()).view(output.sizes()));
    begin += output.numel();
  }
}

void all_gather_tensor(const Collectives& collectives, const at::Tensor& output,
                       const at::Tensor& input) {
  require_contiguous(output, input, "all_gather");
  require_one_type({input}, output.scalar_type(), "all_gather");
  const auto ranks = collectives.comm().size();
  require(output.numel() == input.numel() * ranks,
          "all_gather: an output of {} elements for {} ranks with inputs of {}", output.numel(),
          ranks, input.numel());
  const auto mine = input.is_alias_of(output)
                        ? input.clone()
                        : input;  // a rank's part may be its place in the whole
  collectives.all_gather(output, mine,
                         std::vector<std::int64_t>(static_cast<std::size_t>(ranks), input.numel()));
}

/// Along the first dimension; evenly where there are no sizes.
std::vector<at::Tensor> split_for_ranks(const at::Tensor& tensor, std::vector<std::int64_t> sizes,
                                        int ranks) {
  require(tensor.dim() > 0, "all_to_all: a tensor without a dimension cannot be split");
  c10d::checkSplitSizes(sizes, tensor, ranks);
  if (sizes.empty()) sizes.assign(static_cast<std::size_t>(ranks), tensor.size(0) / ranks);
  return tensor.split_with_sizes(sizes);
}

void all_to_all_tensor(const Collectives& collectives, const at::Tensor& output,
                       const at::Tensor& input, const std::vector<std::int64_t>& output_sizes,
                       const std::vector<std::int64_t>& input_sizes) {
  require_contiguous(output, input, "all_to_all");
  require_one_type({input}, output.scalar_type(), "all_to_all");
  const auto ranks = collectives.comm().size();
  const auto sent = input.is_alias_of(output) ? input.clone() : input;
  collectives.all_to_all(split_for_ranks(output, output_sizes, ranks),
                         split_for_ranks(sent, input_sizes, ranks));
}

void all_to_all_list(const Collectives& collectives, const std::vector<at::Tensor>& outputs,
                     const std::vector<at::Tensor>& inputs) {
  require_count(outputs.size(), collectives.comm().size(), "all_to_all");
  require_count(inputs.size(), collectives.comm().size(), "all_to_all");
  require_one_type(outputs, inputs.front().scalar_type(), "all_to_all");
  require_one_type(inputs, inputs.front().scalar_type(), "all_to_all");
  std::vector<at::Tensor> sent;
  std::vector<at::Tensor> buffers;
  std::vector<Receiver> receivers;
  for (const auto& input : inputs) sent.push_back(input.contiguous());
  for (const auto& output : outputs) {
    const bool is_shared =
        std::ranges::any_of(sent, [&](const auto& input) { return input.is_alias_of(output); });
    buffers.push_back(receivers.emplace_back(output, output.scalar_type(), is_shared).buffer());
  }
  collectives.all_to_all(buffers, sent);
  for (auto& receiver : receivers) receiver.give();
}

class MpiWork final : public c10d::Work {
 public:
  /// device: of the outputs.
  MpiWork(int rank, c10d::OpType type, std::vector<at::Tensor> outputs, c10::Device device)
      : Work(rank, type),
        outputs_(std::move(outputs)),
        future_(c10::make_intrusive<c10::ivalue::Future>(
            c10::ListType::create(c10::TensorType::get()),
            device.is_cpu() ? std::vector<c10::Device>{} : std::vector{device})) {}

  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  std::vector<at::Tensor> result() override { return outputs_; }

  void run(const std::function<void()>& collective) {
    try {
      collective();
    } catch (...) {
      future_->setError(std::current_exception());  // first: who waits for the work finds it there
      finish(std::current_exception());
      return;
    }
    finish();
    future_->markCompleted(c10::IValue(outputs_));
  }

 private:
  std::vector<at::Tensor> outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

/// Runs what it is given, in order, on a thread of its own. What is left when it is destroyed is
/// still run.
class Worker {
 public:
  Worker() : thread_([this] { loop(); }) {}
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  void add(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_one();
  }

 private:
  void loop() {
    const at::NoGradGuard no_grad;
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      const auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses the others
};

using Pending = c10::intrusive_ptr<c10d::Work>;

using Tensors = std::vector<at::Tensor>;
/// work(outputs, inputs)
using OnTensors = std::function<void(Tensors&, const Tensors&)>;

/// Tensors as MPI may have them. Of a device it gets copies in pinned memory: MPI never receives
/// device memory.
class Staging {
 public:
  /// side: null for tensors of the host. Its copies come after the work that makes the inputs.
  Staging(Tensors outputs, Tensors inputs, std::shared_ptr<const device::SideStream> side)
      : outputs_(std::move(outputs)), inputs_(std::move(inputs)), side_(std::move(side)) {
    if (side_) made_ = side_->mark_current();
  }

  void run(const OnTensors& collective) {
    if (!side_) return collective(outputs_, inputs_);
    side_->after(made_);
    const auto inputs = copies_of_inputs();
    auto outputs = copies_for_outputs(inputs);
    side_->wait();
    collective(outputs, inputs);
    side_->run([&] {
      for (std::size_t i = 0; i < outputs.size(); ++i) outputs_[i].copy_(outputs[i], true);
    });
    side_->wait();
  }

 private:
  Tensors copies_of_inputs() const {
    Tensors copies;
    side_->run([&] {
      for (const auto& input : inputs_)
        copies.push_back(device::pinned_like(input).copy_(input, true));
    });
    return copies;
  }

  /// A tensor that is input and output has one copy.
  Tensors copies_for_outputs(const Tensors& inputs) const {
    Tensors copies;
    for (const auto& output : outputs_) {
      const auto same =
          std::ranges::find_if(inputs_, [&](const auto& input) { return input.is_same(output); });
      copies.push_back(same == inputs_.end()
                           ? device::pinned_like(output)
                           : inputs[static_cast<std::size_t>(same - inputs_.begin())]);
    }
    return copies;
  }

  Tensors outputs_;
  Tensors inputs_;
  std::shared_ptr<const device::SideStream> side_;
  std::shared_ptr<c10::Event> made_;  // the inputs
};

/// Lists one behind another, and their lengths.
struct Lists {
  explicit Lists(const std::vector<Tensors>& lists) {
    for (const auto& list : lists) {
      all.insert(all.end(), list.begin(), list.end());
      lengths.push_back(list.size());
    }
  }
  /// The same lists of other tensors.
  static std::vector<Tensors> of(const Tensors& all, const std::vector<std::size_t>& lengths) {
    std::vector<Tensors> lists;
    auto begin = all.begin();
    for (const auto length : lengths) {
      const auto end = begin + static_cast<std::ptrdiff_t>(length);
      lists.emplace_back(begin, end);
      begin = end;
    }
    return lists;
  }
  Tensors all;
  std::vector<std::size_t> lengths;
};

class MpiBackend final : public c10d::Backend {
 public:
  MpiBackend(Comm comm, std::size_t largest)
      : Backend(comm.rank(), comm.size()), collectives_(std::move(comm), largest) {}

  const std::string getBackendName() const override { return "attune_mpi"; }

  Pending allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    return start(c10d::OpType::ALLREDUCE, tensors, tensors,
                 [this, op = options.reduceOp.op_](Tensors& outputs, const Tensors&) {
                   for (auto& tensor : outputs) all_reduce(collectives_, tensor, op);
                 });
  }

  Pending broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    return start(
        c10d::OpType::BROADCAST, tensors, tensors,
        [this, from = static_cast<int>(options.rootRank)](Tensors& outputs, const Tensors&) {
          for (auto& tensor : outputs) parallel::broadcast(collectives_.comm(), tensor, from);
        });
  }

  Pending reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                         const c10d::ReduceScatterOptions& options) override {
    Lists lists(inputs);
    return start(c10d::OpType::REDUCE_SCATTER, outputs, std::move(lists.all),
                 [this, lengths = lists.lengths, op = options.reduceOp.op_](Tensors& to,
                                                                            const Tensors& from) {
                   const auto all = Lists::of(from, lengths);
                   for (std::size_t i = 0; i < to.size(); ++i)
                     reduce_scatter_list(collectives_, to[i], all.at(i), op);
                 });
  }

  Pending _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                               const c10d::ReduceScatterOptions& options) override {
    return start(c10d::OpType::_REDUCE_SCATTER_BASE, {output}, {input},
                 [this, op = options.reduceOp.op_](Tensors& to, const Tensors& from) {
                   reduce_scatter_tensor(collectives_, to[0], from[0], op);
                 });
  }

  Pending allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                    const c10d::AllgatherOptions&) override {
    Lists lists(outputs);
    return start(c10d::OpType::ALLGATHER, std::move(lists.all), inputs,
                 [this, lengths = lists.lengths](Tensors& to, const Tensors& from) {
                   const auto all = Lists::of(to, lengths);
                   for (std::size_t i = 0; i < from.size(); ++i)
                     all_gather_list(collectives_, all.at(i), from[i]);
                 });
  }

  Pending _allgather_base(at::Tensor& output, at::Tensor& input,
                          const c10d::AllgatherOptions&) override {
    return start(c10d::OpType::_ALLGATHER_BASE, {output}, {input},
                 [this](Tensors& to, const Tensors& from) {
                   all_gather_tensor(collectives_, to[0], from[0]);
                 });
  }

  Pending alltoall_base(at::Tensor& output, at::Tensor& input,
                        std::vector<std::int64_t>& output_sizes,
                        std::vector<std::int64_t>& input_sizes,
                        const c10d::AllToAllOptions&) override {
    return start(c10d::OpType::ALLTOALL_BASE, {output}, {input},
                 [this, output_sizes, input_sizes](Tensors& to, const Tensors& from) {
                   all_to_all_tensor(collectives_, to[0], from[0], output_sizes, input_sizes);
                 });
  }

  Pending alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions&) override {
    return start(c10d::OpType::ALLTOALL, outputs, inputs, [this](Tensors& to, const Tensors& from) {
      all_to_all_list(collectives_, to, from);
    });
  }

  Pending barrier(const c10d::BarrierOptions&) override {
    return start(c10d::OpType::BARRIER, {}, {},
                 [this](Tensors&, const Tensors&) { collectives_.comm().barrier(); });
  }

 private:
  Pending start(c10d::OpType type, Tensors outputs, Tensors inputs, OnTensors collective) {
    const auto device = device_of(outputs, inputs);
    auto work = c10::make_intrusive<MpiWork>(getRank(), type, outputs, device);
    const auto staging =
        std::make_shared<Staging>(std::move(outputs), std::move(inputs), side_stream_of(device));
    worker_.add([work, staging, device, collective = std::move(collective)] {
      device::make_current(device);  // where the end of the work is recorded
      work->run([&] { staging->run(collective); });
    });
    return work;
  }

  static c10::Device device_of(const Tensors& outputs, const Tensors& inputs) {
    const auto& some = outputs.empty() ? inputs : outputs;
    const auto device = some.empty() ? c10::Device(c10::kCPU) : some.front().device();
    for (const auto* tensors : {&outputs, &inputs})
      for (const auto& tensor : *tensors)
        if (tensor.device() != device)
          throw Fault(
              fmt::format("tensors on {} and {} together", device.str(), tensor.device().str()));
    return device;
  }

  /// Null for the host. All tensors of a group are on one device.
  std::shared_ptr<const device::SideStream> side_stream_of(c10::Device device) {
    if (device.is_cpu()) return nullptr;
    if (!side_) side_ = std::make_shared<device::SideStream>(device);
    return side_;
  }

  Collectives collectives_;
  std::shared_ptr<const device::SideStream> side_;
  Worker worker_;  // after collectives_: it ends first
};

}  // namespace

c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(const Comm& comm, std::size_t largest) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(comm.rank(), comm.size());
  const auto backend = c10::make_intrusive<MpiBackend>(duplicate(comm), largest);
  group->setBackend(at::kCPU, c10d::ProcessGroup::CUSTOM, backend);
  if (const auto type = device::accelerator())
    group->setBackend(*type, c10d::ProcessGroup::CUSTOM, backend);
  group->setDefaultBackend(c10d::ProcessGroup::CUSTOM);
  return group;
}

}  // namespace attune::parallel
