#!/usr/bin/env python3
"""FOLDOC as Debian's dict-foldoc ships it -> train.jsonl and validation.jsonl, rows {"prompt", "response"}.

usage: convert.py FOLDER        (holds foldoc.dict.dz and foldoc.index; the two files are written beside them)

One row for each distinct definition: wrapped lines are rejoined into paragraphs; responses over 1,200 characters and repeated
prompts or responses are dropped, so that no row can sit in both splits. Shuffled with a fixed seed: the same dictionary gives
the same bytes. Standard library only.
"""
import gzip
import json
import random
import sys
import textwrap
from pathlib import Path

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
LONGEST_RESPONSE = 1200  # characters
TRAIN_ROWS, VALIDATION_ROWS = 2000, 200
SEED = 0


def number(digits):
    """dictd writes offsets and lengths in base 64, most significant digit first."""
    value = 0
    for digit in digits:
        value = value * 64 + DIGITS.index(digit)
    return value


def entries(folder):
    """Every distinct definition in the order of the dictionary: several words of the index may point to one."""
    dictionary = gzip.decompress((folder / "foldoc.dict.dz").read_bytes())
    index = (folder / "foldoc.index").read_text(encoding="utf-8").splitlines()
    lines = (line.split("\t") for line in index if not line.startswith("00-database"))
    spans = {(number(offset), number(length)) for _, offset, length in lines}
    for offset, length in sorted(spans):
        yield dictionary[offset:offset + length].decode("utf-8")


def rejoin(paragraph):
    """One line for running text. Paragraphs with deeper indented lines (tables, code, lists) keep their line breaks."""
    lines = [line.rstrip() for line in paragraph.split("\n")]
    if any(line.startswith((" ", "\t")) for line in lines):
        return "\n".join(lines)
    return " ".join(lines).replace(".  ", ". ")  # FOLDOC puts two spaces after a full stop


def row(entry):
    heading, _, body = entry.partition("\n\n")
    term = heading.strip().split("\n")[0].strip()  # further lines are other names of the same entry
    paragraphs = map(rejoin, textwrap.dedent(body).strip("\n").split("\n\n"))
    response = "\n\n".join(p for p in paragraphs if p.strip()).strip()
    return term, {"prompt": f"Define the computing term {term}", "response": response}


def rows(folder):
    kept, prompts, responses = [], set(), set()
    for term, candidate in map(row, entries(folder)):
        prompt, response = candidate["prompt"].lower(), candidate["response"]
        if not term or not response or len(response) > LONGEST_RESPONSE or prompt in prompts or response in responses:
            continue
        prompts.add(prompt)
        responses.add(response)
        kept.append(candidate)
    random.Random(SEED).shuffle(kept)
    return kept


def write(path, selected):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in selected)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    kept = rows(folder)
    wanted = TRAIN_ROWS + VALIDATION_ROWS
    if len(kept) < wanted:
        sys.exit(f"{folder}/foldoc.dict.dz holds {len(kept)} usable definitions, {wanted} are wanted: is it the whole of FOLDOC?")
    write(folder / "train.jsonl", kept[:TRAIN_ROWS])
    write(folder / "validation.jsonl", kept[TRAIN_ROWS:wanted])
    print(f"foldoc: {len(kept)} usable definitions; {TRAIN_ROWS} rows to train on, {VALIDATION_ROWS} to validate")


if __name__ == "__main__":
    main()
