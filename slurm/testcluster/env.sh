# shellcheck shell=bash
# Source this in the shell that submits jobs to the test cluster: Slurm's commands then speak to it.
# shellcheck source=slurm/testcluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if [ ! -e "$cluster/settings" ]; then echo "there is no cluster in $cluster; start one with $here/up" >&2; fi
export TMPDIR=$cluster/tmp  # what Open MPI leaves behind goes with the cluster
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if [ "${mode:-}" = plain ]; then
  # All nodes are one host: Open MPI leaves its loopback out by default, and shared-memory segments of equal names would collide.
  export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
fi
