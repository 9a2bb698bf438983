"""Two tasks whose answers copy most of their source: correction, made here, and wikisplit.

    python benchmarks/copying_data.py DATA OUT

DATA holds corpus/*.jsonl.gz (documents, a "text" each) and tasks/wikisplit/{train,dev}.csv.gz (text, split). OUT
gets `corpus.jsonl`, what a tokenizer and a model may be trained on, and `correction.toml` and `wikisplit.toml`
with their rows. One document in 50 is held out: the correction test comes from those alone.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from unmask.objectives.randomness import generator

#: Corpus → how many of its documents are passed over for each one taken.
CORPORA = {"en.openstax-ccby": 1, "en.factbook": 1, "en.wikitext2-valid": 1, "en.eltec": 4}
#: Sentences of this many characters.
SHORTEST, LONGEST = 30, 240
#: Wikipedia's text as wikisplit has it, cut into tokens, is scarce: each sentence is damaged in so many ways.
WAYS = 5
PAIRS, TEST_ROWS = 240_000, 2_000
#: Of the words of a text, this share is damaged.
DAMAGED = 0.12
#: Words that a reader can put back.
SMALL_WORDS = re.compile(
    "a|an|and|are|as|at|be|by|for|from|had|has|have|he|her|his|in|is|it|its|of|on|or|that|the|their|they|this|to|was|"
    "were|which|with"
)
_SENTENCE_END = re.compile(r"(?<=[.!?]) +(?=[\"'A-Z])|\n+")


def damage(text: str, rng: np.random.Generator) -> str:
    """Typing errors, missing small words and wrong case in about `DAMAGED` of the words."""
    words = []
    for word in text.split(" "):
        if rng.random() >= DAMAGED:
            words.append(word)
        elif not SMALL_WORDS.fullmatch(word.lower()) or rng.random() < 0.5:
            words.append(misspell(word, rng))
    return " ".join(words)


def misspell(word: str, rng: np.random.Generator) -> str:
    """Two letters exchanged, one left out, doubled or replaced, or the case changed."""
    if len(word) < 2:
        return word
    place = int(rng.integers(len(word) - 1))
    here, there = word[place], word[place + 1]
    other = chr(ord("a") + int(rng.integers(26)))
    choices = (
        word[:place] + there + here + word[place + 2 :],
        word[:place] + word[place + 1 :],
        word[:place] + here + word[place:],
        word[:place] + other + word[place + 1 :],
        word.lower() if word != word.lower() else word.capitalize(),
    )
    return choices[int(rng.integers(len(choices)))]


def sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(text):
        sentence = " ".join(sentence.split())
        if SHORTEST <= len(sentence) <= LONGEST:
            yield sentence


def documents(data: Path, name: str, every: int) -> Iterator[tuple[str, str]]:
    with gzip.open(data / "corpus" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % every == 0:
                document = json.loads(line)
                yield document["id"], document["text"]


def is_held_out(name: str) -> bool:
    return blake2b(name.encode(), digest_size=2).digest()[0] % 50 == 0


def read_wikisplit(data: Path, split: str) -> list[tuple[str, str]]:
    path = data / "tasks" / "wikisplit" / f"{split}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return [(row["text"], row["split"]) for row in csv.DictReader(lines)]


def write_task(out: Path, name: str, splits: dict[str, list[tuple[str, str]]]) -> None:
    settings = {"name": name, "kind": "text-to-text", "source": "text", "target": "clean"}
    for split, rows in splits.items():
        settings[split] = f"{name}-{split}.csv"
        with (out / settings[split]).open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(["text", "clean"])
            writer.writerows(rows)
    table = [f'{key} = "{value}"' for key, value in settings.items()]
    (out / f"{name}.toml").write_text(
        "\n".join([*table, "max_source_length = 160", "max_target_length = 160", ""])
    )


def damaged(clean: Iterable[str], purpose: str, seed: int) -> list[tuple[str, str]]:
    return [(damage(text, generator(seed, purpose, number)), text) for number, text in enumerate(clean)]


def write(data: Path, out: Path, seed: int = 0) -> None:
    out.mkdir(parents=True, exist_ok=True)
    train: list[str] = []
    test: list[str] = []
    split_train = read_wikisplit(data, "train")
    with (out / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for name, every in CORPORA.items():
            ways = WAYS if "wikitext" in name else 1
            for identifier, text in documents(data, name, every):
                if is_held_out(identifier):
                    test += sentences(text)
                    continue
                train += [sentence for sentence in sentences(text) for _ in range(ways)]
                corpus.write(json.dumps({"id": identifier, "text": text}) + "\n")
        for number, (text, split) in enumerate(split_train):
            train += [text, split] * WAYS
            corpus.write(json.dumps({"id": f"wikisplit/{number}", "text": split}) + "\n")
    for texts, purpose in ((train, "order of training"), (test, "order of the test")):
        generator(seed, purpose).shuffle(texts)  # type: ignore[arg-type]
    seen = set(train)
    unseen = [text for text in dict.fromkeys(test) if text not in seen]
    correction = {
        "train": damaged(train[:PAIRS], "damage of training", seed),
        "test": damaged(unseen[:TEST_ROWS], "damage of the test", seed),
    }
    write_task(out, "correction", correction)
    write_task(out, "wikisplit", {"train": split_train, "test": read_wikisplit(data, "dev")})
    print(
        f"{len(train):,} sentences, {len(correction['train']):,} pairs to train, {len(correction['test']):,} to test"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write(Path(sys.argv[1]), Path(sys.argv[2]))
