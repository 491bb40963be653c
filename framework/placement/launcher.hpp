// Who bound this process to processors: the user, or a launcher that was told nothing.
#pragma once
#include "core/host.hpp"
#include "placement/topology.hpp"

namespace attune::placement {

/// Open MPI 4 binds each rank by default: to a core up to two ranks, to a socket beyond. True when
/// it did so unasked: neither an option such as --bind-to, --map-by with PE= or --cpu-set nor the
/// variable OMPI_MCA_... behind it was given. Source: mpirun(1) of Open MPI 4.1, "Mapping, Ranking,
/// and Binding".
bool bound_unasked(const Variables& variable);

/// The processors of the mpirun or of the daemon of its that started this process: what belongs to
/// the run on this node. Empty when no process above this one is such.
Processors processors_of_launcher();

/// Whether `mine` is what Open MPI binds to by itself: a wrapper (numactl, taskset) may have
/// narrowed it further.
bool is_default_binding(const Topology& topology, const Processors& mine,
                        const Processors& launcher, int ranks);

}  // namespace attune::placement
