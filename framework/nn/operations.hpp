// Counts what a piece of work computes, operator by operator, also on the meta device: from it
// comes the time that it takes on a machine of known rates.
#pragma once
#include <functional>

namespace attune::nn {

struct Operations {
  double products = 0;  // multiplications and additions, of matrices and convolutions
  double made = 0;      // bytes of the tensors that operators made
  double calls = 0;     // of operators
};

/// Of this thread. Work of autograd on the meta device and the host belongs to it.
Operations count_operations(const std::function<void()>& work);

/// For operators of Attune's own, which no other counts: so many multiplications and additions.
void add_products(double count);

}  // namespace attune::nn
