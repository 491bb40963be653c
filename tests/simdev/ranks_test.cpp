// Ranks on simulated devices: each has its own. Tensors are exchanged by collectives of the
// devices' own, or by MPI through the host: it never gets the devices' memory, which would end the
// process.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "collectives.hpp"
#include "counters.hpp"
#include "device.hpp"
#include "device/device.hpp"
#include "memory.hpp"
#include "parallel/backend.hpp"
#include "parallel/gradient_sum.hpp"
#include "parallel/gradients.hpp"
#include "parallel/mpi.hpp"
#include "parallel/under_way.hpp"
#include "placement/devices.hpp"

namespace attune {
namespace {

using parallel::Transport;

class Ranks : public testing::TestWithParam<Transport> {
 protected:
  static void SetUpTestSuite() {
    simdev::register_devices();
    declare_collectives(simdev::sim, &simdev::find_collective);
  }
  Ranks() : device_(placement::choose_device("sim", mesh_)) {}

  at::Tensor here(const at::Tensor& tensor) const { return tensor.to(device_); }
  int size() const { return mesh_.world.size(); }
  int rank() const { return mesh_.world.rank(); }

  const Mesh mesh_ = Mesh::make(world());
  const c10::Device device_;
};

INSTANTIATE_TEST_SUITE_P(By, Ranks, testing::Values(Transport::automatic, Transport::mpi),
                         [](const auto& by) { return by.param == Transport::mpi ? "Mpi" : "Own"; });

TEST_P(Ranks, HaveADeviceEach) {
  EXPECT_EQ(device_, c10::Device(simdev::sim, static_cast<c10::DeviceIndex>(rank())));
  EXPECT_EQ(placement::choose_device("auto", mesh_), device_);
  EXPECT_TRUE(placement::choose_device("cpu", mesh_).is_cpu());
}

TEST_P(Ranks, ExchangeWhatIsOnTheirDevices) {
  const auto group = parallel::make_process_group(mesh_.world, device_, GetParam());
  EXPECT_EQ(group->getBackend(simdev::sim)->getBackendName(),
            size() > 1 && GetParam() == Transport::automatic ? "NCCL 2.0.0" : "MPI");
  const auto sent_before = simdev::counted().bytes_to_ranks;
  const auto ones = [&](std::int64_t count) { return here(torch::full({count}, rank() + 1.0)); };
  const auto all = size() * (size() + 1) / 2;

  std::vector<at::Tensor> sums{ones(5), ones(6).view({2, 3}).t()};
  group->allreduce(sums)->wait();
  EXPECT_TRUE(sums[0].cpu().equal(torch::full({5}, static_cast<double>(all))));
  EXPECT_TRUE(sums[1].cpu().equal(torch::full({3, 2}, static_cast<double>(all))));

  std::vector<at::Tensor> first{ones(3)};
  group->broadcast(first)->wait();
  EXPECT_TRUE(first[0].cpu().equal(torch::ones({3})));

  at::Tensor whole = here(torch::zeros({2 * size()}));
  at::Tensor part = ones(2);
  group->_allgather_base(whole, part)->wait();
  EXPECT_EQ(whole.sum().item<double>(), 2 * all);
  group->_reduce_scatter_base(part, whole)->wait();
  EXPECT_TRUE(part.cpu().equal(torch::full({2}, size() * (rank() + 1.0))));

  std::vector<std::vector<at::Tensor>> gathered{{}};
  for (int i = 0; i < size(); ++i) gathered[0].push_back(here(torch::zeros({4})));
  std::vector<at::Tensor> mine{ones(4)};
  group->allgather(gathered, mine)->wait();
  for (int i = 0; i < size(); ++i) EXPECT_EQ(gathered[0][i].sum().item<double>(), 4 * (i + 1));

  std::vector<at::Tensor> received;
  std::vector<at::Tensor> sent;
  for (int i = 0; i < size(); ++i) received.push_back(here(torch::zeros({3})));
  for (int i = 0; i < size(); ++i) sent.push_back(here(torch::full({3}, 10.0 * rank() + i)));
  group->alltoall(received, sent)->wait();
  for (int i = 0; i < size(); ++i)
    EXPECT_TRUE(received[i].cpu().equal(torch::full({3}, 10.0 * i + rank())));
  group->barrier()->wait();
  EXPECT_EQ(simdev::counted().bytes_to_ranks > sent_before,
            size() > 1 && GetParam() == Transport::automatic);
}

TEST_P(Ranks, ExchangeBlocksOfUnequalAndNoLength) {
  const auto group = parallel::make_process_group(mesh_.world, device_, GetParam());
  const auto length = [](int index) { return index == 1 ? 0 : 3 * index + 2; };
  const auto filled = [&](std::int64_t count, double value) {
    return here(torch::full({count}, value, at::kDouble));
  };

  std::vector<std::vector<at::Tensor>> inputs{{}};
  std::vector<std::vector<at::Tensor>> gathered{{}};
  for (int i = 0; i < size(); ++i) {
    inputs[0].push_back(filled(length(i), 10.0 * rank() + i));
    gathered[0].push_back(filled(length(i), 0));
  }
  std::vector<at::Tensor> mine{filled(length(rank()), 0)};
  group->reduce_scatter(mine, inputs)->wait();
  const double sum = 10.0 * size() * (size() - 1) / 2 + size() * rank();
  EXPECT_TRUE(mine[0].cpu().equal(torch::full({length(rank())}, sum, at::kDouble)));
  group->allgather(gathered, mine)->wait();
  for (int i = 0; i < size(); ++i)
    EXPECT_TRUE(gathered[0][i].cpu().equal(
        torch::full({length(i)}, 10.0 * size() * (size() - 1) / 2 + size() * i, at::kDouble)));

  // rank 1 gets nothing, and sends to all others
  std::vector<at::Tensor> received;
  std::vector<at::Tensor> sent;
  for (int i = 0; i < size(); ++i) {
    received.push_back(filled(length(rank()), -1));
    sent.push_back(filled(length(i), 10.0 * rank() + i));
  }
  group->alltoall(received, sent)->wait();
  for (int i = 0; i < size(); ++i)
    EXPECT_TRUE(
        received[i].cpu().equal(torch::full({length(rank())}, 10.0 * i + rank(), at::kDouble)));
}

TEST_P(Ranks, ReduceWithEveryOperationAndRefuseOthers) {
  const auto group = parallel::make_process_group(mesh_.world, device_, GetParam());
  const auto reduced = [&](c10d::ReduceOp::RedOpType op, at::ScalarType type) {
    c10d::AllreduceOptions options;
    options.reduceOp = op;
    std::vector<at::Tensor> tensors{here(torch::full({3}, rank() + 2, type))};
    group->allreduce(tensors, options)->wait();
    return tensors[0].cpu()[2].item<double>();
  };
  double product = 1;
  for (int i = 0; i < size(); ++i) product *= i + 2;
  for (const auto type : {at::kFloat, at::kDouble, at::kInt, at::kLong, at::kByte, at::kBFloat16}) {
    EXPECT_EQ(reduced(c10d::ReduceOp::PRODUCT, type), product);
    EXPECT_EQ(reduced(c10d::ReduceOp::MAX, type), size() + 1);
    EXPECT_EQ(reduced(c10d::ReduceOp::MIN, type), 2);
  }
  std::vector<at::Tensor> complex{here(torch::ones({3}, at::kComplexFloat))};
  const auto work = group->allreduce(complex);
  EXPECT_THROW(work->wait(), std::exception);
  EXPECT_TRUE(work->getFuture()->hasError());
}

/// Puts work on the current stream that the device has not come to the end of.
void keep_the_device_busy(c10::Device device) {
  simdev::later(simdev::current_stream(device), [] {});
}

TEST_P(Ranks, WaitForOthersWhileADeviceIsInACollective) {
  const auto event = [&] {
    auto mark = std::make_shared<c10::Event>(simdev::sim);
    mark->record(simdev::current_stream(device_));
    return mark;
  };
  // A simulated device comes to an event when it is asked for it a second time.
  const auto before = parallel::collectives_entered();
  keep_the_device_busy(device_);
  const auto begin = event();
  keep_the_device_busy(device_);
  parallel::note_on_device(begin, event());
  EXPECT_EQ(parallel::collectives_entered(), before) << "it has not come to it";
  EXPECT_EQ(parallel::collectives_entered(), before + 1) << "it is in it, and waits for others";
  EXPECT_EQ(parallel::collectives_entered(), before) << "it has left it";
}

/// Gradients of two parameters, summed over the ranks, after one pass of each rank's own input.
template <class Backward>
std::vector<at::Tensor> gradients_by(c10::Device device, int rank, const Backward& backward) {
  torch::manual_seed(3);
  const auto parameter = [&](at::IntArrayRef sizes) {
    return torch::randn(sizes).to(device).requires_grad_();
  };
  const parallel::NamedTensors parameters{{"a", parameter({8, 4})}, {"b", parameter({3, 8})}};
  const at::Tensor x = torch::randn({2, 4}).add(rank).to(device);
  backward(parameters, [&] {
    return at::linear(at::tanh(at::linear(x, parameters[0].second)), parameters[1].second).sum();
  });
  std::vector<at::Tensor> gradients;
  for (const auto& [name, tensor] : parameters) gradients.push_back(tensor.grad().cpu());
  return gradients;
}

TEST_P(Ranks, SumGradientsAsCpusDo) {
  const auto reduced = [&](c10::Device device, bool in_one_piece = true) {
    return gradients_by(device, rank(), [&](const auto& parameters, const auto& loss) {
      parallel::GradientReducer reducer(
          parameters, mesh_.world, parallel::make_process_group(mesh_.world, device_, GetParam()),
          in_one_piece);
      for (int step = 0; step < 3; ++step) {  // buckets are made anew after the first
        for (const auto& [name, tensor] : parameters) tensor.mutable_grad() = at::Tensor();
        reducer.begin_last_backward();
        loss().backward();
        reducer.finish();
      }
    });
  };
  const auto in_order = [&](c10::Device device) {
    return gradients_by(device, rank(), [&](const auto& parameters, const auto& loss) {
      const parallel::RankGroup group{
          mesh_.world, parallel::make_process_group(mesh_.world, device_, GetParam())};
      parallel::GradientSum tree(parameters, parallel::ShardPlan::whole(parameters),
                                 parallel::Sharing::nothing(group), /*reproducible=*/true, true);
      tree.begin(size(), rank(), rank() + 1);
      tree.backward(loss());
      tree.finish();
    });
  };
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(reduced(device_)[i].allclose(reduced(at::kCPU)[i], 1e-6, 1e-6));
    EXPECT_TRUE(reduced(device_, false)[i].allclose(reduced(at::kCPU)[i], 1e-6, 1e-6));
    EXPECT_TRUE(reduced(at::kCPU, false)[i].allclose(reduced(at::kCPU)[i], 1e-6, 1e-6));
    EXPECT_TRUE(in_order(device_)[i].equal(in_order(at::kCPU)[i])) << "the same bits";
  }
}

}  // namespace
}  // namespace attune
