// Ranks on simulated devices: each has its own, and MPI never gets the devices' memory, which would
// end the process.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "device.hpp"
#include "device/device.hpp"
#include "memory.hpp"
#include "parallel/backend.hpp"
#include "parallel/gradient_tree.hpp"
#include "parallel/gradients.hpp"
#include "parallel/mpi.hpp"
#include "placement/devices.hpp"

namespace attune {
namespace {

class Ranks : public testing::Test {
 protected:
  static void SetUpTestSuite() { simdev::register_devices(); }
  Ranks() : device_(placement::choose_device("sim", mesh_)) {}

  at::Tensor here(const at::Tensor& tensor) const { return tensor.to(device_); }
  int size() const { return mesh_.world.size(); }
  int rank() const { return mesh_.world.rank(); }

  const Mesh mesh_ = Mesh::make(world());
  const c10::Device device_;
};

TEST_F(Ranks, HaveADeviceEach) {
  EXPECT_EQ(device_, c10::Device(simdev::sim, static_cast<c10::DeviceIndex>(rank())));
  EXPECT_EQ(placement::choose_device("auto", mesh_), device_);
  EXPECT_TRUE(placement::choose_device("cpu", mesh_).is_cpu());
}

TEST_F(Ranks, ExchangeWhatIsOnTheirDevices) {
  const auto group = parallel::make_process_group(mesh_.world);
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

TEST_F(Ranks, SumGradientsAsCpusDo) {
  const auto reduced = [&](c10::Device device, bool in_one_piece = true) {
    return gradients_by(device, rank(), [&](const auto& parameters, const auto& loss) {
      parallel::GradientReducer reducer(parameters, mesh_.world, in_one_piece);
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
      parallel::GradientTree tree(parameters, mesh_.world);
      tree.begin(size(), rank(), rank() + 1);
      loss().backward();
      tree.add();
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
