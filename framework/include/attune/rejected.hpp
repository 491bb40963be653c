// The exception for a record that yields no sample.
#pragma once
#include <attune/api.hpp>
#include <attune/error.hpp>

ATTUNE_API_BEGIN
namespace attune {

/// Thrown during the conversion of a record. The sample is dropped and counted under this reason.
class Rejected : public Error {
 public:
  using Error::Error;
};

}  // namespace attune
ATTUNE_API_END
