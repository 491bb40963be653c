// Rounding to bfloat16 on simulated devices.
#include "nn/rounding.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "device.hpp"
#include "memory.hpp"

namespace attune {
namespace {

/// Sizes below, at and above the number of thresholds, and the size of what is rounded at a time.
TEST(Rounding, IsTheHostsOnADevice) {
  simdev::register_devices();
  torch::manual_seed(8);
  for (const std::int64_t size : {0L, 1L, 1000L, 65536L, 65537L, 200000L, (1L << 22) + 70000})
    for (const std::int64_t first : {0L, 1024L * 77}) {
      const auto values = torch::randn({size});
      const auto device = values.to(c10::Device(simdev::sim, 0));
      EXPECT_TRUE(nn::rounded_evenly(device, first).cpu().equal(nn::rounded_evenly(values, first)))
          << size << " from " << first;
    }
}

}  // namespace
}  // namespace attune
