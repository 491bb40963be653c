// Origin of this process's CPU binding: the user, or a launcher's default.
#pragma once
#include "core/host.hpp"
#include "placement/topology.hpp"

namespace attune::placement {

/// Whether Open MPI bound this rank by default: to a core with up to two ranks, to a socket with
/// more. False if an option (--bind-to, --map-by with PE=, --cpu-set) or its OMPI_MCA_... variable
/// was given. Source: mpirun(1) of Open MPI 4.1, "Mapping, Ranking, and Binding".
bool bound_unasked(const Variables& variable);

/// Processors of the mpirun or MPI daemon that started this process, i.e. those of the run on this
/// node. Empty if there is no such ancestor process.
Processors processors_of_launcher();

/// Whether `mine` is Open MPI's default binding. It is not if a wrapper (numactl, taskset) narrowed
/// it.
bool is_default_binding(const Topology& topology, const Processors& mine,
                        const Processors& launcher, int ranks);

}  // namespace attune::placement
