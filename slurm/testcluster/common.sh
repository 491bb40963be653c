# shellcheck shell=bash disable=SC2034,SC2154  # variables go from one file to the other
# Shared by up, down, node and env.sh. All that the cluster is lies in one folder; nothing in /etc, /run or /var is touched.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The folder's name is short because it holds sockets, whose paths end at 107 characters.
export ATTUNE_CLUSTER=${ATTUNE_CLUSTER:-${TMPDIR:-/tmp}/attune-slurm-$(id -u)}
cluster=$ATTUNE_CLUSTER
export SLURM_CONF=$cluster/etc/slurm.conf
PATH=$PATH:/usr/sbin:/sbin  # the daemons, for an ordinary user

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# The mode, number of nodes, network and ports that `up` chose.
# shellcheck source=/dev/null
if [ -f "$cluster/settings" ]; then source "$cluster/settings"; fi

nodes() { seq -f 'n%g' "$node_count"; }

# live PIDFILE PROGRAM: the process in the file, as long as it is that program and no zombie.
live() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null && echo "$pid"
}

# eventually SECONDS COMMAND...: true as soon as the command is.
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then return 1; fi
    sleep 0.05
  done
}
