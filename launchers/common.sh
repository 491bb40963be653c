# shellcheck shell=bash
# Shared by the scripts of this folder, by tests/run and by .ci/run: source it from anywhere, it finds the checkout by itself.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit

say() { printf '\n== %s\n' "$*"; }

# fail MESSAGE: the user's mistake, or a machine that lacks something; as the program does, exit code 2.
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# Root by itself, or through a sudo that asks for no password.
may_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# over_ranks N COMMAND...: the command under mpirun, the processors shared out among the ranks. Oversubscribing is allowed because Open MPI
# counts cores, where two hardware threads of one core are two processors to everyone else.
over_ranks() {
  local ranks=$1
  shift
  local -x OMP_NUM_THREADS=$(($(nproc) > ranks ? $(nproc) / ranks : 1))
  if [ "$(id -u)" -eq 0 ]; then  # Open MPI asks root twice
    local -x OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  mpirun --oversubscribe --bind-to none -n "$ranks" "$@"
}

# usage FILE: the comment at its head.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"; }
