#!/usr/bin/env python3
"""The reStructuredText sources of the Python documentation -> documents.jsonl, rows {"name", "text"}.

usage: convert.py SOURCES FOLDER        (SOURCES: html/_sources of Debian's python3.11-doc)

A row for each file, by name; nothing is changed. Standard library only.
"""
import json
import sys
from pathlib import Path

SUFFIX = ".rst.txt"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sources, folder = map(Path, sys.argv[1:])
    files = sorted((path.relative_to(sources).as_posix(), path) for path in sources.rglob("*" + SUFFIX))
    if not files:
        sys.exit(f"{sources}: holds no {SUFFIX} files: is it html/_sources of the Python documentation?")
    with open(folder / "documents.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for name, path in files:
            out.write(json.dumps({"name": name.removesuffix(SUFFIX), "text": path.read_text(encoding="utf-8")}, ensure_ascii=False) + "\n")
    print(f"pydocs: {len(files)} documents")


if __name__ == "__main__":
    main()
