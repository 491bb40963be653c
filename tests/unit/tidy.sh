#!/usr/bin/env bash
# .clang-tidy's checks, as errors, over what the program is built of: framework, launchers and plugins, in the units that are compiled.
#
#   tests/unit/tidy.sh BUILD_FOLDER [WORD...]
#
#   WORD   only units whose path contains one of these, such as attune_train, plugins/models or tidy/strategies
set -euo pipefail
build=$(realpath "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PWD/.venv/bin:$PATH

units() {
  local pattern="^($PWD/(framework|launchers|plugins/(models|datasets))/|$build/(framework/.*/Unity|tidy)/)"
  grep -o '"file": "[^"]*"' "$build/compile_commands.json" | cut -d'"' -f4 | sort -u | grep -E "$pattern" |
    grep -F "$(printf '%s\n' "${@:-/}")"
}

# clang has no omp.h of its own; it is looked up after all else, for GCC's other headers are not for clang.
gcc_headers=$(c++ -print-file-name=include)
check() {
  units "$@" | xargs -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet --extra-arg="-idirafter$gcc_headers" 2>&1 |
    { grep -vE '^([0-9]+ warnings? |Suppressed )' || true; } | sed -E "s#^($PWD/|$build/roots/([a-z0-9_]*)/)##"
}
check "$@"
