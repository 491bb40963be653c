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
components=$(find framework -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | paste -sd'|')
forbid 'plugins must include the public API alone' "#include [\"<]($components)/" plugins

# What a public header declares is exported (attune/api.hpp); these two declare no functions, and plugin.hpp one that plugins define.
for header in framework/include/attune/*.hpp; do
  case ${header##*/} in api.hpp | built_for.hpp | plugin.hpp) continue ;; esac
  if [ "$(grep -cxE 'ATTUNE_API_(BEGIN|END)' "$header")" != 2 ]; then
    echo "$header: declares between no ATTUNE_API_BEGIN and ATTUNE_API_END what plugins are to use"
    breaches=1
  fi
done

# What the files of a run directory are called is known to one component (framework/run_directory/places.hpp), and so is what they hold.
elsewhere=(launchers plugins)
for folder in framework/*/; do
  if [ "$folder" != framework/run_directory/ ]; then elsewhere+=("$folder"); fi
done
files='(run\.toml|record\.json|metrics\.jsonl|evaluation\.json|not_finite\.jsonl|job\.sbatch|trial\.log|attempts|failures|launches|\.launched)'
forbid 'framework/run_directory alone names the files of a run directory' "\"[^\" ]*$files\"|/ \"(jobs|checkpoints)\"|\"\.?lock\.|\\\$run/[a-z.]" "${elsewhere[@]}"
forbid 'framework/run_directory alone knows the formats of these files' '"attune-(record|metrics|evaluation|lock)"' "${elsewhere[@]}"

while IFS=: read -r file link; do
  case $link in *://* | '#'*) continue ;; esac
  if [ ! -e "$(dirname "$file")/${link%%#*}" ]; then
    echo "$file: links to $link, which is not there"
    breaches=1
  fi
done < <(find . -path './.*' -prune -o -path './build*' -prune -o -path ./models -prune -o -path ./data -prune -o -path ./runs -prune -o -name '*.md' -print0 |
  xargs -0 grep -oE '\]\([^) ]+\)' /dev/null | sed -E 's/\]\((.*)\)$/\1/')

exit "$breaches"
