#include "weights/shapes.hpp"

#include <ATen/ops/empty.h>
#include <attune/error.hpp>

#include <algorithm>
#include <map>

namespace attune {
namespace {

/// Float types and codes keep their type; all others are quantized, and come as float32.
at::ScalarType type_when_read(const std::string& stored) {
  static const std::map<std::string, at::ScalarType> kept{
      {"F64", at::kDouble}, {"F16", at::kHalf}, {"BF16", at::kBFloat16},
      {"I64", at::kLong},   {"I32", at::kInt},  {"I16", at::kShort},
      {"I8", at::kChar},    {"U8", at::kByte},  {"BOOL", at::kBool}};
  const auto found = kept.find(stored);
  return found == kept.end() ? at::kFloat : found->second;
}

}  // namespace

at::Tensor Shapes::read(const std::string& name) {
  const auto found = std::ranges::find(tensors_, name, &TensorInfo::name);
  ATTUNE_ASSERT(found != tensors_.end(), "tensor '{}'", name);
  return at::empty(found->shape,
                   at::TensorOptions(type_when_read(found->stored)).device(at::kMeta));
}

}  // namespace attune
