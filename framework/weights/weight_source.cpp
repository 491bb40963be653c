#include <attune/weights.hpp>

#include <algorithm>

namespace attune {

bool WeightSource::contains(const std::string& name) const {
  const auto& all = tensors();
  return std::any_of(all.begin(), all.end(),
                     [&](const TensorInfo& info) { return info.name == name; });
}

}  // namespace attune
