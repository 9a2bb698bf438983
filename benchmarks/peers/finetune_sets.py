"""The sets of `benchmarks/finetune.py`: real rows as task files, and one made of them by damaging their texts."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unmask.hub import atomic_directory


@dataclass(frozen=True)
class Set:
    """A set.

    Attributes:
        family: that learns it.
        lines: of its task file; {data} stands for the folder of all sets, {made} for that of what `make` wrote.
        make: (folder of all sets, an empty folder) writes what is not there yet.
    """

    family: str
    lines: str
    make: Callable[[Path, Path], None] | None = None


def task_file(name: str, data: Path, work: Path) -> Path:
    """The path of a set's task file, written with what it needs."""
    chosen, made = SETS[name], work / f"{name}-rows"
    if chosen.make is not None and not made.is_dir():
        with atomic_directory(made) as temporary:
            chosen.make(data, temporary)
    path = work / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\n' + chosen.lines.format(data=data.resolve(), made=made.resolve()) + "\n"
    )
    return path


# --- damaged text -------------------------------------------------------------------------------------------

#: The share of words that is damaged.
DAMAGED = 0.15
SMALL_WORDS = frozenset(
    ["a", "an", "the", "of", "in", "on", "at", "to", "is", "are", "and", "with", "for", "by"]
)


def damaged(text: str, draw: random.Random) -> str:
    """A text as somebody in a hurry types it: letters swapped, left out or doubled, small words forgotten, words
    written twice, a wrong first case."""
    words: list[str] = []
    for word in text.split():
        if draw.random() >= DAMAGED:
            words.append(word)
            continue
        if word.lower() in SMALL_WORDS and draw.random() < 0.5:
            continue
        way, place = draw.randrange(5), draw.randrange(max(1, len(word) - 1))
        if way == 0:
            word = word[:place] + word[place : place + 2][::-1] + word[place + 2 :]
        elif way == 1 and len(word) > 1:
            word = word[:place] + word[place + 1 :]
        elif way == 2:
            word = word[:place] + word[place] + word[place:]
        elif way == 3:
            words.append(word)
        else:
            word = word[0].swapcase() + word[1:]
        words.append(word)
    # Not empty, should all words have been forgotten.
    return " ".join(words) or text


def captions_with_errors(data: Path, out: Path) -> None:
    """Multi30k's English captions and what they are with errors: train, val and test, none in two of them."""
    folder = data / "multi30k"
    for split, file in (("train", "train"), ("validation", "val"), ("test", "test_2016_flickr")):
        draw = random.Random(split)
        with gzip.open(folder / f"en-de.{file}.csv.gz", "rt", encoding="utf-8", newline="") as rows:
            texts = [" ".join(row["en"].split()) for row in csv.DictReader(rows)]
        with (out / f"{split}.csv").open("w", encoding="utf-8", newline="") as file_out:
            writer = csv.writer(file_out)
            writer.writerow(["damaged", "text"])
            writer.writerows([damaged(text, draw), text] for text in texts)


SETS: Mapping[str, Set] = {
    "trec": Set(
        "electra",
        'kind = "classification"\nsource = "text"\ntarget = "label"\nmax_source_length = 64\n'
        'train = "{data}/trec/train.csv.gz"\ntest = "{data}/trec/test.csv.gz"',
    ),
    "stsb": Set(
        "electra",
        'kind = "regression"\nsource = ["sentence1", "sentence2"]\ntarget = "score"\n'
        'train = "{data}/glue_stsb/train.csv.gz"\ntest = "{data}/glue_stsb/dev.csv.gz"',
    ),
    "wnut17": Set(
        "electra",
        'kind = "tagging"\nsource = "tokens"\ntarget = "tags"\n'
        'train = "{data}/wnut17/train.csv.gz"\ntest = "{data}/wnut17/dev.csv.gz"',
    ),
    "multi30k": Set(
        "t5",
        'kind = "text-to-text"\nsource = "en"\ntarget = "de"\nmax_target_length = 64\n'
        'train = "{data}/multi30k/en-de.train.csv.gz"\n'
        'test = "{data}/multi30k/en-de.test_2016_flickr.csv.gz"',
    ),
    "e2e": Set(
        "t5",
        'kind = "text-to-text"\nsource = "meaning"\ntarget = "text"\nmax_target_length = 96\n'
        'train = "{data}/e2e/train.csv.gz"\ntest = "{data}/e2e/test.csv.gz"',
    ),
    "corrections": Set(
        "t5",
        'kind = "text-to-text"\nsource = "damaged"\ntarget = "text"\nmax_target_length = 64\n'
        'train = "{made}/train.csv"\ntest = "{made}/test.csv"',
        captions_with_errors,
    ),
    # Those that defaults are chosen on, none of them above.
    "sst2": Set(
        "electra",
        'kind = "classification"\nsource = "text"\ntarget = "label"\nmax_source_length = 64\n'
        'train = "{data}/glue_sst2/train.csv.gz"\ntest = "{data}/glue_sst2/dev.csv.gz"',
    ),
    "sick": Set(
        "electra",
        'kind = "pair-classification"\nsource = ["premise", "hypothesis"]\ntarget = "label"\n'
        'train = "{data}/sick/train.csv.gz"\ntest = "{data}/sick/dev.csv.gz"',
    ),
    "conll2003": Set(
        "electra",
        'kind = "tagging"\nsource = "tokens"\ntarget = "tags"\n'
        'train = "{data}/conll2003/train.csv.gz"\ntest = "{data}/conll2003/dev.csv.gz"',
    ),
    "multi30k-fr": Set(
        "t5",
        'kind = "text-to-text"\nsource = "en"\ntarget = "fr"\nmax_target_length = 64\n'
        'train = "{data}/multi30k/en-fr.train.csv.gz"\ntest = "{data}/multi30k/en-fr.val.csv.gz"',
    ),
    "wikisplit": Set(
        "t5",
        'kind = "text-to-text"\nsource = "text"\ntarget = "split"\nmax_target_length = 96\n'
        'train = "{data}/wikisplit/train.csv.gz"\ntest = "{data}/wikisplit/dev.csv.gz"',
    ),
    "webnlg": Set(
        "t5",
        'kind = "text-to-text"\nsource = "triples"\ntarget = "text"\nmax_target_length = 96\n'
        'train = "{data}/webnlg/train.csv.gz"\ntest = "{data}/webnlg/dev.csv.gz"',
    ),
}
#: What the table is of.
TABLE = ("trec", "stsb", "wnut17", "multi30k", "e2e", "corrections")
