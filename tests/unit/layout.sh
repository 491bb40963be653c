#!/usr/bin/env bash
# The layering that docs/layout.md promises, and the links between the documents. Prints every breach; exit code 1 when there is one.
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../..}"
breaches=0

# forbid SENTENCE PATTERN PATH...: no line below the paths matches.
forbid() {
  local sentence=$1 pattern=$2
  shift 2
  if grep -rnE --include='*.hpp' --include='*.cpp' "$pattern" "$@"; then
    echo "^ $sentence"
    breaches=1
  fi
}

forbid 'framework/ must not include from plugins/ or launchers/' '#include ["<](\.\./)*(plugins|launchers)/' framework
forbid 'public headers must not include torch/torch.h: it costs 35 s a file' '#include <torch/(torch|all)[.]h>' framework/include
forbid 'public headers must include public headers alone' '#include "' framework/include
forbid 'plugins must include the public API alone' '#include "(checkpoint|config|core|data|evaluate|parallel|registry|report|text|train|weights)/' plugins

while IFS=: read -r file link; do
  case $link in *://* | '#'*) continue ;; esac
  if [ ! -e "$(dirname "$file")/${link%%#*}" ]; then
    echo "$file: links to $link, which is not there"
    breaches=1
  fi
done < <(find . -path './.*' -prune -o -path './build*' -prune -o -path ./models -prune -o -path ./data -prune -o -path ./runs -prune -o -name '*.md' -print0 |
  xargs -0 grep -oE '\]\([^) ]+\)' /dev/null | sed -E 's/\]\((.*)\)$/\1/')

exit "$breaches"
