// Numbers that the host reads from a device together, so that it waits for the device once.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace attune::device {

class Readings {
 public:
  /// Returns the place of the tensor's first number; the others follow. Any dtype and shape, on a
  /// device or on the host. The tensor may change afterwards.
  std::size_t add(const at::Tensor& numbers);
  /// Waits for the numbers that are on a device.
  void read();
  /// The number at that place, after read().
  double operator[](std::size_t place) const { return numbers_[place]; }

 private:
  // float64 [n] each, of which the places are the running sum of n
  std::vector<at::Tensor> pending_;
  std::size_t places_ = 0;
  std::vector<double> numbers_;
};

}  // namespace attune::device
