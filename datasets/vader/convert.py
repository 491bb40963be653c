#!/usr/bin/env python3
"""VADER's rated movie-review snippets -> train.tsv and validation.tsv, with the columns text and label.

usage: convert.py FOLDER        (holds movieReviewSnippets_GroundTruth.txt; the two files are written beside it)

The label is the sign of the mean human rating; snippets rated within 0.05 of zero and repeats are dropped. Shuffled with a
fixed seed and split 80/20: the same input gives the same bytes. Standard library only.
"""
import random
import sys
from pathlib import Path

NEUTRAL = 0.05  # on the scale of -4 to 4
SEED = 0


def snippets(path):
    """(text, label) of every line "id, rating, text", white space in the text made single spaces."""
    seen = set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        _, rating, text = line.split("\t", 2)
        rating, text = float(rating), " ".join(text.split())
        if abs(rating) < NEUTRAL or text in seen:
            continue
        seen.add(text)
        yield text, "positive" if rating > 0 else "negative"


def write(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.write("text\tlabel\n")
        out.writelines(f"{text}\t{label}\n" for text, label in rows)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    rows = list(snippets(folder / "movieReviewSnippets_GroundTruth.txt"))
    random.Random(SEED).shuffle(rows)
    train = len(rows) * 8 // 10
    write(folder / "train.tsv", rows[:train])
    write(folder / "validation.tsv", rows[train:])
    print(f"vader: {train} rows to train on, {len(rows) - train} to validate")


if __name__ == "__main__":
    main()
