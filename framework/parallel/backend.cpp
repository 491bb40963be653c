#include "parallel/backend.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <utility>

#include "device/device.hpp"
#include "parallel/nccl.hpp"
#include "parallel/runner.hpp"

namespace attune::parallel {
namespace {

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

class GroupBackend final : public c10d::Backend {
 public:
  /// on_device: null where devices have no collectives of their own. name: of what moves tensors
  /// of devices.
  GroupBackend(const Comm& comm, std::unique_ptr<Runner> on_host, std::unique_ptr<Runner> on_device,
               std::string name)
      : Backend(comm.rank(), comm.size()),
        on_host_(std::move(on_host)),
        on_device_(std::move(on_device)),
        name_(std::move(name)) {}

  const std::string getBackendName() const override { return name_; }

  Pending allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    return start(
        c10d::OpType::ALLREDUCE, tensors, tensors,
        [op = options.reduceOp.op_](const Collectives& group, Tensors& outputs, const Tensors&) {
          for (auto& tensor : outputs) all_reduce(group, tensor, op);
        });
  }

  Pending broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    return start(c10d::OpType::BROADCAST, tensors, tensors,
                 [from = static_cast<int>(options.rootRank)](const Collectives& group,
                                                             Tensors& outputs, const Tensors&) {
                   for (auto& tensor : outputs) parallel::broadcast(group, tensor, from);
                 });
  }

  Pending reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                         const c10d::ReduceScatterOptions& options) override {
    Lists lists(inputs);
    return start(c10d::OpType::REDUCE_SCATTER, outputs, std::move(lists.all),
                 [lengths = lists.lengths, op = options.reduceOp.op_](
                     const Collectives& group, Tensors& to, const Tensors& from) {
                   const auto all = Lists::of(from, lengths);
                   for (std::size_t i = 0; i < to.size(); ++i)
                     reduce_scatter_list(group, to[i], all.at(i), op);
                 });
  }

  Pending _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                               const c10d::ReduceScatterOptions& options) override {
    return start(
        c10d::OpType::_REDUCE_SCATTER_BASE, {output}, {input},
        [op = options.reduceOp.op_](const Collectives& group, Tensors& to, const Tensors& from) {
          reduce_scatter_tensor(group, to[0], from[0], op);
        });
  }

  Pending allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                    const c10d::AllgatherOptions&) override {
    Lists lists(outputs);
    return start(
        c10d::OpType::ALLGATHER, std::move(lists.all), inputs,
        [lengths = lists.lengths](const Collectives& group, Tensors& to, const Tensors& from) {
          const auto all = Lists::of(to, lengths);
          for (std::size_t i = 0; i < from.size(); ++i) all_gather_list(group, all.at(i), from[i]);
        });
  }

  Pending _allgather_base(at::Tensor& output, at::Tensor& input,
                          const c10d::AllgatherOptions&) override {
    return start(c10d::OpType::_ALLGATHER_BASE, {output}, {input},
                 [](const Collectives& group, Tensors& to, const Tensors& from) {
                   all_gather_tensor(group, to[0], from[0]);
                 });
  }

  Pending alltoall_base(at::Tensor& output, at::Tensor& input,
                        std::vector<std::int64_t>& output_sizes,
                        std::vector<std::int64_t>& input_sizes,
                        const c10d::AllToAllOptions&) override {
    return start(
        c10d::OpType::ALLTOALL_BASE, {output}, {input},
        [output_sizes, input_sizes](const Collectives& group, Tensors& to, const Tensors& from) {
          all_to_all_tensor(group, to[0], from[0], output_sizes, input_sizes);
        });
  }

  Pending alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions&) override {
    return start(c10d::OpType::ALLTOALL, outputs, inputs,
                 [](const Collectives& group, Tensors& to, const Tensors& from) {
                   all_to_all_list(group, to, from);
                 });
  }

  Pending barrier(const c10d::BarrierOptions&) override {
    return start(
        c10d::OpType::BARRIER, {}, {},
        [](const Collectives& group, Tensors&, const Tensors&) { group.comm().barrier(); });
  }

 private:
  Pending start(c10d::OpType type, Tensors outputs, Tensors inputs, OnTensors collective) {
    const auto device = device_of(outputs, inputs);
    auto& runner = device.is_cpu() || !on_device_ ? *on_host_ : *on_device_;
    return runner.start(type, device, std::move(outputs), std::move(inputs), std::move(collective));
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

  std::unique_ptr<Runner> on_host_;
  std::unique_ptr<Runner> on_device_;
  std::string name_;
};

}  // namespace

ProcessGroup make_process_group(const Comm& comm, c10::Device device, Transport transport,
                                std::size_t largest) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(comm.rank(), comm.size());
  auto on_device = transport == Transport::automatic ? make_nccl(comm, device) : nullptr;
  auto name = on_device ? nccl_version(device.type()) : "MPI";
  const auto backend = c10::make_intrusive<GroupBackend>(
      comm, make_host_runner(comm, largest),
      on_device ? make_device_runner(std::move(on_device), device) : nullptr, std::move(name));
  group->setBackend(at::kCPU, c10d::ProcessGroup::CUSTOM, backend);
  if (!device.is_cpu()) group->setBackend(device.type(), c10d::ProcessGroup::CUSTOM, backend);
  group->setDefaultBackend(c10d::ProcessGroup::CUSTOM);
  return group;
}

void warm_up(c10d::ProcessGroup& group, c10::Device device) {
  at::Tensor mine = at::zeros({group.getSize()}, at::TensorOptions().device(device));
  at::Tensor theirs = at::zeros_like(mine);
  at::Tensor all = at::zeros({group.getSize() * mine.numel()}, mine.options());
  std::vector<std::int64_t> equal;
  std::vector<at::Tensor> summed{theirs};
  std::vector<at::Tensor> own{at::zeros({1}, mine.options())};
  std::vector<std::vector<at::Tensor>> of_ranks{mine.split(1)};
  group.alltoall_base(theirs, mine, equal, equal)->wait();
  group._allgather_base(all, mine)->wait();
  group.allreduce(summed)->wait();
  group.reduce_scatter(own, of_ranks)->wait();
  group.allgather(of_ranks, own)->wait();
  device::synchronise(device);
}

}  // namespace attune::parallel
