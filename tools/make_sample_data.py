"""Make the data that `unmask quickstart` uses, from E2E and WordNet as CSV files.

    python tools/make_sample_data.py TASKS src/unmask/sample

TASKS holds `e2e/{train,test}.csv.gz` (meaning, text) and `wordnet_senses/{train,dev}.csv.gz` (definition,
words, supersense). The output is the same for the same input, byte for byte. No held-out row, and no text of
one, is in the corpus or in a training file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sys
from pathlib import Path

SENSE_ROWS = 6000
CORPUS_DEFINITIONS = 20_000


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def write_table(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())


def shuffled(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return random.Random(0).sample(rows, len(rows))


def main(tasks: Path, out: Path) -> None:
    restaurants, restaurants_test = read(tasks / "e2e/train.csv.gz"), read(tasks / "e2e/test.csv.gz")
    senses, senses_test = (
        read(tasks / "wordnet_senses/train.csv.gz"),
        read(tasks / "wordnet_senses/dev.csv.gz"),
    )
    held_out = {row["definition"] for row in senses_test} | {row["text"] for row in restaurants_test}
    held_out |= {row["meaning"] for row in restaurants_test}
    senses = shuffled([row for row in senses if row["definition"] not in held_out])
    restaurants = shuffled(
        [row for row in restaurants if row["text"] not in held_out and row["meaning"] not in held_out]
    )
    columns = ["definition", "supersense"]
    write_table(out / "senses/train.csv.gz", senses[:SENSE_ROWS], columns)
    write_table(out / "senses/test.csv.gz", shuffled(senses_test), columns)
    columns = ["meaning", "text"]
    write_table(out / "restaurants/train.csv.gz", restaurants, columns)
    write_table(out / "restaurants/test.csv.gz", shuffled(restaurants_test), columns)
    definitions = sorted({row["definition"] for row in senses})
    texts = random.Random(1).sample(definitions, CORPUS_DEFINITIONS)
    texts += sorted({row["text"] for row in restaurants} | {row["meaning"] for row in restaurants})
    random.Random(2).shuffle(texts)
    write(
        out / "corpus.jsonl.gz",
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
