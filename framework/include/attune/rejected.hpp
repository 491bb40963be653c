// A record that gives no sample.
#pragma once
#include <stdexcept>

namespace attune {

/// Thrown while a record becomes a sample: the sample is dropped and counted under this reason.
class Rejected : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace attune
