"""A few rows of every built-in task in the form in which its set is published; the words are ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TRUTH = ["The cat sat on the mat .", "The dog barked at me .", "Ada lived in London .", "I like it ."]
OTHERS = ["A cat sat .", "The dog slept .", "Ada lived in Rome .", "I like the mat ."]


def tsv(path: Path, header: str | None, rows: Sequence[Sequence[object]]) -> None:
    lines = ["\t".join(map(str, row)) for row in rows]
    path.write_text("\n".join([*([header] if header else []), *lines]) + "\n", encoding="utf-8")


def jsonl(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def both(directory: Path, names: tuple[str, str], write: Callable[[Path], None]) -> None:
    for name in names:
        write(directory / name)


def glue(
    header: str | None, row: Callable[[int], Sequence[object]], dev: str = "dev.tsv"
) -> Callable[[Path], None]:
    return lambda directory: both(
        directory, ("train.tsv", dev), lambda path: tsv(path, header, [row(n) for n in range(4)])
    )


def superglue(row: Callable[[int], Row]) -> Callable[[Path], None]:
    return lambda directory: both(
        directory, ("train.jsonl", "val.jsonl"), lambda path: jsonl(path, [row(n) for n in range(4)])
    )


def squad(names: tuple[str, str], *, unanswerable: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        asked = [
            {
                "id": "1",
                "question": " Who sat on the mat?",
                "answers": [{"text": "The cat", "answer_start": 0}],
            },
            {
                "id": "2",
                "question": "Where did it sit?",
                "answers": [{"text": "mat", "answer_start": 19}, {"text": "the mat", "answer_start": 15}],
            },
        ]
        if unanswerable:
            none = {"id": "3", "question": "Who barked?", "is_impossible": True, "answers": []}
            asked = [{**one, "is_impossible": False} for one in asked] + [none | {"plausible_answers": []}]
        paragraphs = [{"context": TRUTH[0], "qas": asked}]
        path.write_text(json.dumps({"version": "x", "data": [{"title": "Cats", "paragraphs": paragraphs}]}))

    return lambda directory: both(directory, names, write)


def conll(names: tuple[str, str]) -> Callable[[Path], None]:
    # IOB1 with four columns, as CoNLL-2003.
    text = (
        "-DOCSTART- -X- O O\n\nAda NNP I-NP I-PER\nlived VBD I-VP O\nin IN I-PP O\nLondon NNP I-NP I-LOC\n\n"
    )
    text += "# NN I-NP O\nme PRP I-NP O\n"
    return lambda directory: both(directory, names, lambda path: path.write_text(text))  # type: ignore[func-returns-value]


def wnut(directory: Path) -> None:
    for name in ("wnut17train.conll", "emerging.dev.conll"):
        (directory / name).write_text("Ada\tB-person\nlived\tO\n\t\nLondon\tB-location\n#\tO\n")


def trec(directory: Path) -> None:
    data = (
        "LOC:city Where did Ada live ?\nHUM:ind Who sat on the mat ?\nENTY:animal What barked at Andr\xe9 ?\n"
    )
    for name in ("train_5500.label", "TREC_10.label"):
        (directory / name).write_bytes(data.encode("latin-1"))


def parallel(other: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        for name in ("train", "val"):
            (directory / f"{name}.en").write_text("\n".join(TRUTH) + "\n")
            (directory / f"{name}.{other}").write_text("\n".join(OTHERS) + "\n")

    return write


def csv(names: tuple[str, str], header: str) -> Callable[[Path], None]:
    rows = [f'"{a}","{b}"' for a, b in zip(TRUTH, OTHERS, strict=True)]
    text = "\n".join([header, *rows]) + "\n"
    return lambda directory: both(directory, names, lambda path: path.write_text(text))  # type: ignore[func-returns-value]


def daily_dialog(directory: Path) -> None:
    for name in ("dialogues_train.txt", "dialogues_validation.txt"):
        (directory / name).write_text(
            "".join(f"{a} __eou__ {b} __eou__ Yes . __eou__\n" for a, b in zip(TRUTH, OTHERS, strict=True))
        )


def articles(directory: Path) -> None:
    for split in ("train", "test"):
        (directory / split).mkdir()
        for number in range(3):
            (directory / split / f"{number}.txt").write_text(" ".join(TRUTH * 6))


def blimp(directory: Path) -> None:
    rows = [
        {"sentence_good": a, "sentence_bad": a.replace(" the ", " the the ", 1) + "s"}
        | {"field": "syntax", "linguistics_term": "argument_structure", "UID": "causative"}
        for a in TRUTH
    ]
    jsonl(directory / "agreement.jsonl", rows)


def multirc(n: int) -> Row:
    answers = [{"text": "the cat", "label": 1}, {"text": "Ada", "label": 0}]
    return {
        "idx": n,
        "passage": {"text": TRUTH[n], "questions": [{"question": "Who?", "answers": answers, "idx": n}]},
    }


def record(n: int) -> Row:
    answer = {"start": 0, "end": len(TRUTH[n].split()[0]) - 1, "text": TRUTH[n].split()[0]}
    return {"passage": {"text": TRUTH[n]}, "qas": [{"query": "@placeholder sat", "answers": [answer]}]}


PUBLISHED: dict[str, Callable[[Path], None]] = {
    "cola": glue(None, lambda n: ("gj04", n % 2, "*" if n % 2 else "", TRUTH[n])),
    "sst2": glue("sentence\tlabel", lambda n: (f'{TRUTH[n]} "', n % 2)),
    "mrpc": glue(
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        lambda n: (n % 2, 1, 2, f'" {TRUTH[n]}', OTHERS[n]),
    ),
    "qqp": glue(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        lambda n: (n, 1, 2, TRUTH[n], OTHERS[n], n % 2) if n < 3 else (n, 1, 2, "cut off"),
    ),
    "stsb": glue(
        "index\tgenre\tsentence1\tsentence2\tscore",
        lambda n: (n, "news", TRUTH[n], OTHERS[n], 1.25 * n, "more"),
    ),
    "mnli": glue(
        "index\tsentence1\tsentence2\tgold_label",
        lambda n: (n, TRUTH[n], OTHERS[n], ("entailment", "neutral", "contradiction")[n % 3]),
        "dev_matched.tsv",
    ),
    "mnli-mismatched": glue(
        "index\tsentence1\tsentence2\tgold_label",
        lambda n: (n, TRUTH[n], OTHERS[n], ("entailment", "neutral", "contradiction")[n % 3]),
        "dev_mismatched.tsv",
    ),
    "qnli": glue(
        "index\tquestion\tsentence\tlabel",
        lambda n: (n, "Who sat?", TRUTH[n], ("entailment", "not_entailment")[n % 2]),
    ),
    "rte": glue(
        "index\tsentence1\tsentence2\tlabel",
        lambda n: (n, TRUTH[n], OTHERS[n], ("entailment", "not_entailment")[n % 2]),
    ),
    "wnli": glue("index\tsentence1\tsentence2\tlabel", lambda n: (n, TRUTH[n], OTHERS[n], n % 2)),
    "boolq": superglue(lambda n: {"question": "did it sit", "passage": TRUTH[n], "label": n % 2 == 0}),
    "cb": superglue(
        lambda n: {
            "premise": TRUTH[n],
            "hypothesis": OTHERS[n],
            "label": ("entailment", "contradiction", "neutral")[n % 3],
        }
    ),
    "copa": superglue(
        lambda n: {
            "premise": TRUTH[n],
            "choice1": OTHERS[n],
            "choice2": "It rained .",
            "question": "cause",
            "label": n % 2,
        }
    ),
    "multirc": superglue(multirc),
    "record": superglue(record),
    "wic": superglue(
        lambda n: {
            "word": "cat",
            "sentence1": TRUTH[n],
            "sentence2": OTHERS[n],
            "label": n % 2 == 0,
            "version": 1.1,
        }
    ),
    "wsc": superglue(
        lambda n: {
            "text": TRUTH[n],
            "target": {"span1_text": "The cat", "span2_text": "it", "span1_index": 0},
            "label": n % 2 == 0,
        }
    ),
    "squad": squad(("train-v1.1.json", "dev-v1.1.json"), unanswerable=False),
    "squad2": squad(("train-v2.0.json", "dev-v2.0.json"), unanswerable=True),
    "conll2003": conll(("eng.train", "eng.testb")),
    "ner": wnut,
    "trec": trec,
    "translation-en-de": parallel("de"),
    "translation-en-fr": parallel("fr"),
    "summarisation": csv(("train.csv", "validation.csv"), "document,summary"),
    "e2e": csv(("trainset.csv", "testset_w_refs.csv"), "mr,ref"),
    "correction": csv(("train.csv", "dev.csv"), "text,correction"),
    "dialogue": daily_dialog,
    "continuation": articles,
    "blimp": blimp,
}


def _ag_news(directory: Path) -> None:
    for name in ("train.csv", "test.csv"):
        rows = [
            f'"{text}",{label}'
            for text, label in zip(TRUTH, ("World", "Sports", "Business", "Sci/Tech"), strict=True)
        ]
        (directory / name).write_text("\n".join(["text,label", *rows]) + "\n")


def _sts(directory: Path) -> None:
    rows = [
        {"sentence1": a, "sentence2": b, "score": 1.6 * n}
        for n, (a, b) in enumerate(zip(TRUTH, OTHERS, strict=True))
    ]
    both(directory, ("train.jsonl", "dev.jsonl"), lambda path: jsonl(path, rows))


def _chinese(directory: Path) -> None:
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(["很好吃", "太慢了", "不错", "一般"])]
    both(directory, ("train.jsonl", "test.jsonl"), lambda path: jsonl(path, rows))


PUBLISHED |= {"ag-news": _ag_news, "sts": _sts, "chinese-reviews": _chinese}
