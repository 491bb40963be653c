// What a pass on the meta device stands for.
#pragma once
#include <ATen/core/Tensor.h>

namespace attune::nn {

/// While it lives, this thread's tensors on the meta device stand for those of an accelerator if
/// `is_one`: its operators take other memory than the host's.
class PlannedOnAccelerator {
 public:
  explicit PlannedOnAccelerator(bool is_one) : before_(now()) { now() = is_one; }
  ~PlannedOnAccelerator() { now() = before_; }
  PlannedOnAccelerator(const PlannedOnAccelerator&) = delete;
  PlannedOnAccelerator& operator=(const PlannedOnAccelerator&) = delete;

  static bool is_planned(const at::Tensor& x) { return x.is_meta() && now(); }

 private:
  static bool& now() {
    static thread_local bool is_one = false;
    return is_one;
  }
  bool before_;
};

/// In the memory of the host, or planned to be there.
inline bool is_near(const at::Tensor& x) {
  return x.is_cpu() || (x.is_meta() && !PlannedOnAccelerator::is_planned(x));
}

/// In the memory of an accelerator, or planned to be there.
inline bool is_on_accelerator(const at::Tensor& x) { return !is_near(x); }

}  // namespace attune::nn
