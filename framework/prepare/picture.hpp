// PNG and JPEG files as tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "prepare/row.hpp"

namespace attune {

/// Decodes an image into uint8 [height, width, channels], with 1 channel for greyscale and 3
/// otherwise. bytes: a complete PNG or JPEG file. BadRow if it is neither, or larger than any
/// model's input.
at::Tensor decode_picture(const Row& row, const std::string& bytes);

}  // namespace attune
