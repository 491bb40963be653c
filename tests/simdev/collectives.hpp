// Collectives of the simulated devices, with the functions of NCCL 2: ranks of one machine pass
// messages through shared memory, along a ring where NCCL does, and what is sent is counted. A call
// happens at once, so the host waits in it; whether a real device would have made it in an order
// that matters is noted and checked, as for operators.
#pragma once

namespace attune::simdev {

/// A function by its name, such as "ncclAllReduce"; null if there is no such one.
/// ATTUNE_SIM_COLLECTIVES=fail: ranks cannot connect; =break: the first collective is the last, and
/// an error is reported.
void* find_collective(const char* name);

}  // namespace attune::simdev
