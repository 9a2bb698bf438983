"""The sets of `benchmarks/finetune.py`: real rows as task files, and one made of them by damaging their texts."""

from __future__ import annotations

import csv
import gzip
import json
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


def learner_corrections(data: Path, out: Path) -> None:
    """JFLEG's sentences with the first of their corrections: the first 604 learn, the last 150 test."""
    with gzip.open(data / "jfleg" / "dev.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        rows = [(row["text"], row["ref0"]) for row in csv.DictReader(lines)]
    for split, some in (("train", rows[:-150]), ("test", rows[-150:])):
        with (out / f"{split}.csv").open("w", encoding="utf-8", newline="") as file_out:
            writer = csv.writer(file_out)
            writer.writerow(["text", "correction"])
            writer.writerows(some)


def _of(family: str, folder: str, kind: str, source: str, target: str, *more: str, **files: str) -> Set:
    """A set of files as they lie in a folder; train.csv.gz and dev.csv.gz where none are named."""
    columns = json.dumps(source.split() if " " in source else source)
    files = {"train": "train.csv.gz", "test": "dev.csv.gz"} | files
    named = [f'{split} = "{{data}}/{folder}/{file}"' for split, file in files.items()]
    return Set(
        family,
        "\n".join([f'kind = "{kind}"', f"source = {columns}", f'target = "{target}"', *more, *named]),
    )


def _answers(folder: str, *more: str, prefix: str = "") -> Set:
    """Answers that are pieces of a context, in SQuAD's format."""
    files = {"train": f"{prefix}train.json.gz", "test": f"{prefix}dev.json.gz"}
    return _of(
        "electra",
        folder,
        "question-answering",
        "question context",
        "answers",
        'format = "squad"',
        *more,
        **files,
    )


SHORT, LONG = "max_source_length = 64", "max_source_length = 512"
ANSWER, SENTENCES = "max_target_length = 64", "max_target_length = 96"
PAIR = "pair-classification"

SETS: Mapping[str, Set] = {
    "trec": _of("electra", "trec", "classification", "text", "label", SHORT, test="test.csv.gz"),
    "stsb": _of("electra", "glue_stsb", "regression", "sentence1 sentence2", "score"),
    "wnut17": _of("electra", "wnut17", "tagging", "tokens", "tags"),
    "multi30k": _of(
        "t5",
        "multi30k",
        "text-to-text",
        "en",
        "de",
        ANSWER,
        train="en-de.train.csv.gz",
        test="en-de.test_2016_flickr.csv.gz",
    ),
    "e2e": _of("t5", "e2e", "text-to-text", "meaning", "text", SENTENCES, test="test.csv.gz"),
    "corrections": Set(
        "t5",
        'kind = "text-to-text"\nsource = "damaged"\ntarget = "text"\nmax_target_length = 64\n'
        'train = "{made}/train.csv"\ntest = "{made}/test.csv"',
        captions_with_errors,
    ),
    # Those that defaults are chosen on.
    "sst2": _of("electra", "glue_sst2", "classification", "text", "label", SHORT),
    "sick": _of("electra", "sick", PAIR, "premise hypothesis", "label"),
    "conll2003": _of("electra", "conll2003", "tagging", "tokens", "tags"),
    "multi30k-fr": _of(
        "t5",
        "multi30k",
        "text-to-text",
        "en",
        "fr",
        ANSWER,
        train="en-fr.train.csv.gz",
        test="en-fr.val.csv.gz",
    ),
    "wikisplit": _of("t5", "wikisplit", "text-to-text", "text", "split", SENTENCES),
    "webnlg": _of("t5", "webnlg", "text-to-text", "triples", "text", SENTENCES),
    # And the rest of the folder.
    "ag-news": _of("electra", "ag_news", "classification", "text", "label"),
    "imdb": _of("electra", "imdb", "classification", "text", "label", LONG),
    "cola": _of(
        "electra", "cola", "classification", "text", "label", SHORT, 'metrics = ["matthews", "accuracy"]'
    ),
    "senses": _of("electra", "wordnet_senses", "classification", "definition", "supersense", SHORT),
    "waimai": _of("electra", "waimai_zh", "classification", "text", "label"),
    "mrpc": _of("electra", "glue_mrpc", PAIR, "sentence1 sentence2", "label"),
    "rte": _of("electra", "glue_rte", PAIR, "premise hypothesis", "label"),
    "qnli": _of("electra", "qnli_dev_split", PAIR, "question sentence", "label"),
    "stsb-de": _of("electra", "stsb_de", "regression", "sentence1 sentence2", "score"),
    "stsb-zh": _of("electra", "stsb_zh", "regression", "sentence1 sentence2", "score"),
    "policyqa": _answers("policyqa"),
    "cmrc2018": _answers("cmrc2018", 'metrics = ["mlqa_zh_f1"]'),
    "xquad-de": _answers("xquad", prefix="de."),
    "scitldr": _of(
        "t5",
        "scitldr",
        "text-to-text",
        "document",
        "summary",
        LONG,
        ANSWER,
        'metrics = ["rouge_l", "bleu"]',
    ),
    "jfleg": Set(
        "t5",
        'kind = "text-to-text"\nsource = "text"\ntarget = "correction"\nmetrics = ["chrf", "bleu"]\n'
        'train = "{made}/train.csv"\ntest = "{made}/test.csv"',
        learner_corrections,
    ),
}
#: What the table is of.
TABLE = ("trec", "stsb", "wnut17", "multi30k", "e2e", "corrections")
