#include "parallel/backend.hpp"

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "parallel/mpi.hpp"

namespace attune::parallel {
namespace {

/// The type MPI reduces a tensor as: MPI knows no half precision.
at::ScalarType wire_type(at::ScalarType type) { return type == at::kBFloat16 || type == at::kHalf ? at::kFloat : type; }

MPI_Datatype mpi_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return MPI_FLOAT;
    case at::kDouble: return MPI_DOUBLE;
    case at::kByte: return MPI_UINT8_T;
    case at::kChar: return MPI_INT8_T;
    case at::kInt: return MPI_INT32_T;
    case at::kLong: return MPI_INT64_T;
    default: throw Fault(fmt::format("tensors of type {} cannot be reduced over MPI", c10::toString(type)));
  }
}

MPI_Op mpi_op(c10d::ReduceOp::RedOpType op) {
  switch (op) {
    case c10d::ReduceOp::SUM: return MPI_SUM;
    case c10d::ReduceOp::PRODUCT: return MPI_PROD;
    case c10d::ReduceOp::MIN: return MPI_MIN;
    case c10d::ReduceOp::MAX: return MPI_MAX;
    default: throw Fault(fmt::format("reduction {} is not among those over MPI: sum, product, min, max", static_cast<int>(op)));
  }
}

void all_reduce(const Comm& comm, at::Tensor& tensor, c10d::ReduceOp::RedOpType op) {
  const auto buffer = tensor.to(wire_type(tensor.scalar_type())).contiguous();
  const auto type = mpi_type(buffer.scalar_type());
  const auto largest = static_cast<std::int64_t>(largest_message / buffer.element_size());
  auto* bytes = static_cast<std::byte*>(buffer.data_ptr());
  const InCollective waiting;
  for (std::int64_t done = 0; done < buffer.numel(); done += largest) {
    const auto count = static_cast<int>(std::min(buffer.numel() - done, largest));
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, bytes + done * buffer.element_size(), count, type, mpi_op(op), mpi_handle(comm)), "MPI_Allreduce");
  }
  if (!buffer.is_same(tensor)) tensor.copy_(buffer);
}

void broadcast(const Comm& comm, at::Tensor& tensor, int from) {
  const auto buffer = tensor.contiguous();
  comm.broadcast(buffer.data_ptr(), buffer.nbytes(), from);
  if (!buffer.is_same(tensor)) tensor.copy_(buffer);
}

class MpiWork final : public c10d::Work {
 public:
  MpiWork(int rank, c10d::OpType type, std::vector<at::Tensor> outputs)
      : Work(rank, type), outputs_(std::move(outputs)),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {}

  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  std::vector<at::Tensor> result() override { return outputs_; }

  void run(const std::function<void()>& collective) {
    try {
      collective();
    } catch (...) {
      finish(std::current_exception());
      future_->setError(std::current_exception());
      return;
    }
    finish();
    future_->markCompleted(c10::IValue(outputs_));
  }

 private:
  std::vector<at::Tensor> outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

/// Runs what it is given, in order, on a thread of its own. What is left when it is destroyed is still run.
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

class MpiBackend final : public c10d::Backend {
 public:
  explicit MpiBackend(Comm comm) : Backend(comm.rank(), comm.size()), comm_(std::move(comm)) {}

  const std::string getBackendName() const override { return "attune_mpi"; }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions& options) override {
    return start(c10d::OpType::ALLREDUCE, tensors, [this, tensors, op = options.reduceOp.op_]() mutable {
      for (auto& tensor : tensors) all_reduce(comm_, tensor, op);
    });
  }

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors, const c10d::BroadcastOptions& options) override {
    return start(c10d::OpType::BROADCAST, tensors, [this, tensors, from = static_cast<int>(options.rootRank)]() mutable {
      for (auto& tensor : tensors) parallel::broadcast(comm_, tensor, from);
    });
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions&) override {
    return start(c10d::OpType::ALLGATHER, outputs.at(0), [this, outputs, inputs]() mutable {
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        outputs[i].at(getRank()).copy_(inputs[i]);
        for (int rank = 0; rank < getSize(); ++rank) parallel::broadcast(comm_, outputs[i].at(rank), rank);
      }
    });
  }

  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override {
    return start(c10d::OpType::BARRIER, {}, [this] { comm_.barrier(); });
  }

 private:
  c10::intrusive_ptr<c10d::Work> start(c10d::OpType type, std::vector<at::Tensor> outputs, std::function<void()> collective) {
    auto work = c10::make_intrusive<MpiWork>(getRank(), type, std::move(outputs));
    worker_.add([work, collective = std::move(collective)] { work->run(collective); });
    return work;
  }

  Comm comm_;
  Worker worker_;  // after comm_: it ends first
};

}  // namespace

c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(const Comm& comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(mpi_handle(comm), &copy), "MPI_Comm_dup");
  auto group = c10::make_intrusive<c10d::ProcessGroup>(comm.rank(), comm.size());
  group->setBackend(at::kCPU, c10d::ProcessGroup::CUSTOM, c10::make_intrusive<MpiBackend>(Comm(std::make_shared<Comm::Impl>(copy))));
  group->setDefaultBackend(c10d::ProcessGroup::CUSTOM);
  return group;
}

}  // namespace attune::parallel
