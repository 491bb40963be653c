// PNG and JPEG files as tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "prepare/row.hpp"

namespace attune {

/// uint8 [height, width, channels]: 1 channel for grey pictures, 3 for all others. The bytes are a
/// whole PNG or JPEG file, whatever its name. BadRow when they are not, or when the picture is
/// larger than any a model takes.
at::Tensor decode_picture(const Row& row, const std::string& bytes);

}  // namespace attune
