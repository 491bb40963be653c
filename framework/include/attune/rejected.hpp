// A record that gives no sample.
#pragma once
#include <attune/api.hpp>
#include <attune/error.hpp>

ATTUNE_API_BEGIN
namespace attune {

/// Thrown while a record becomes a sample: the sample is dropped and counted under this reason.
class Rejected : public Error {
 public:
  using Error::Error;
};

}  // namespace attune
ATTUNE_API_END
