#include "parallel/runner.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "device/device.hpp"
#include "device/stream.hpp"
#include "parallel/mpi.hpp"
#include "parallel/mpi_collectives.hpp"
#include "parallel/under_way.hpp"

namespace attune::parallel {
namespace {

/// A collective that was started.
class GroupWork : public c10d::Work {
 public:
  /// device: of the outputs.
  GroupWork(c10d::OpType type, Tensors outputs, c10::Device device)
      : Work(-1, type),
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
  Tensors outputs_;
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

/// Tensors as MPI may have them. Of a device it gets copies in pinned memory: MPI never receives
/// device memory.
class Staging {
 public:
  /// side: null for tensors of the host. Its copies come after the work that makes the inputs.
  Staging(Tensors outputs, Tensors inputs, std::shared_ptr<const device::SideStream> side)
      : outputs_(std::move(outputs)), inputs_(std::move(inputs)), side_(std::move(side)) {
    if (side_) made_ = side_->mark_current();
  }

  void run(const Collectives& collectives, const OnTensors& collective) {
    if (!side_) return collective(collectives, outputs_, inputs_);
    side_->after(made_);
    const auto inputs = copies_of_inputs();
    auto outputs = copies_for_outputs(inputs);
    side_->wait();
    collective(collectives, outputs, inputs);
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

class HostRunner final : public Runner {
 public:
  HostRunner(Comm comm, std::size_t largest) : collectives_(std::move(comm), largest) {}

  Pending start(c10d::OpType type, c10::Device device, Tensors outputs, Tensors inputs,
                OnTensors collective) override {
    auto work = c10::make_intrusive<GroupWork>(type, outputs, device);
    const auto staging =
        std::make_shared<Staging>(std::move(outputs), std::move(inputs), side_stream_of(device));
    worker_.add([this, work, staging, device, collective = std::move(collective)] {
      device::make_current(device);  // where the end of the work is recorded
      work->run([&] { staging->run(collectives_, collective); });
    });
    return work;
  }

 private:
  /// Null for the host. All tensors of a group are on one device.
  std::shared_ptr<const device::SideStream> side_stream_of(c10::Device device) {
    if (device.is_cpu()) return nullptr;
    if (!side_) side_ = std::make_shared<device::SideStream>(device);
    return side_;
  }

  MpiCollectives collectives_;
  std::shared_ptr<const device::SideStream> side_;
  Worker worker_;  // after collectives_: it ends first
};

/// To the host a collective is done once its stream was given it; what is done with the outputs
/// comes after it on the device.
class DeviceWork final : public GroupWork {
 public:
  using GroupWork::GroupWork;
  void ends_at(std::shared_ptr<c10::Event> end) { end_ = std::move(end); }
  bool isCompleted() override { return GroupWork::isCompleted() && (!end_ || end_->query()); }
  void synchronize() override { device::current_after(end_); }

 private:
  std::shared_ptr<c10::Event> end_;
};

class DeviceRunner final : public Runner {
 public:
  DeviceRunner(std::unique_ptr<Collectives> collectives, c10::Device device)
      : collectives_(std::move(collectives)), side_(device) {}

  Pending start(c10d::OpType type, c10::Device device, Tensors outputs, Tensors inputs,
                OnTensors collective) override {
    const at::NoGradGuard no_grad;
    auto work = c10::make_intrusive<DeviceWork>(type, outputs, device);
    side_.after_current();
    side_.run([&] {
      const auto begin = side_.mark_current();
      work->run([&] { collective(*collectives_, outputs, inputs); });
      const auto end = side_.mark_current();
      work->ends_at(end);
      note_on_device(begin, end);
    });
    side_.uses(outputs);
    side_.uses(inputs);
    return work;
  }

 private:
  std::unique_ptr<Collectives> collectives_;
  device::SideStream side_;
};

}  // namespace

std::unique_ptr<Runner> make_host_runner(const Comm& comm, std::size_t largest) {
  return std::make_unique<HostRunner>(duplicate(comm), largest);
}

std::unique_ptr<Runner> make_device_runner(std::unique_ptr<Collectives> collectives,
                                           c10::Device device) {
  return std::make_unique<DeviceRunner>(std::move(collectives), device);
}

}  // namespace attune::parallel
