#!/usr/bin/env bash
# C++ is formatted as .clang-format says, and no code is wider than its 100 columns (text in raw strings is). Prints every breach;
# exit code 1 when there is one.
#
#   tests/unit/format.sh [--fix]
#
#   --fix   format the files instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PWD/.venv/bin:$PATH

files() { find framework launchers plugins tests \( -name '*.cpp' -o -name '*.hpp' \) -print0; }

if [ "${1:-}" = --fix ]; then
  files | xargs -0 clang-format -i
else
  files | xargs -0 -P "$(nproc)" -n 40 clang-format --dry-run -Werror
fi
