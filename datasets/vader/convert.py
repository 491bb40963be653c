#!/usr/bin/env python3
"""VADER's rated snippets -> train.tsv and validation.tsv (movie reviews), amazon.tsv, nyt.tsv and tweets.tsv, columns text and label.

usage: convert.py FOLDER        (holds the four files *_GroundTruth.txt; the tables are written beside them)

The label is the sign of the mean human rating; snippets rated within 0.05 of zero and repeats are dropped. The movie reviews are
shuffled with a fixed seed and split 80/20, the others keep their order: the same input gives the same bytes. Standard library only.
"""
import random
import sys
from pathlib import Path

NEUTRAL = 0.05  # on the scale of -4 to 4
SEED = 0
OTHERS = {"amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets", "tweets": "tweets"}


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
    others = {name: list(snippets(folder / f"{file}_GroundTruth.txt")) for name, file in OTHERS.items()}
    for name, rows_there in others.items():
        write(folder / f"{name}.tsv", rows_there)
    print(f"vader: {train} rows to train on, {len(rows) - train} to validate; " + ", ".join(f"{name} {len(r)}" for name, r in others.items()))


if __name__ == "__main__":
    main()
