"""Every built-in task runs from its published files to scores, with both families."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from published import OTHERS, PUBLISHED, TRUTH

from unmask.errors import UserError
from unmask.tasks.checks import check_data
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.library import builtin_names, builtin_task, find_task
from unmask.tasks.models import load_for_prediction
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import SPLITS, Task

CPU = torch.device("cpu")
FAMILIES = ("t5", "electra")
ONE_STEP = FinetuneSettings(epochs=0.01, batch_size=4, learning_rate=1e-3, precision="float32")


def run(task: Task, model: Path, place: Path) -> None:
    """From rows to scores, in one step of training."""
    task = replace(
        task,
        max_target_length=min(8, task.max_target_length),
        max_source_length=64,
        stride=16,
        max_question=16,
    )
    tuned = finetune(task, str(model), place, ONE_STEP, device=CPU) if task.its_kind.trains else model
    held_out = HeldOut.read(task, task.held_out)
    learner = load_for_prediction(task, tuned, device=CPU)
    scores = held_out.model(learner).scores
    assert list(scores) == list(task.metrics)
    assert all(-1 <= score <= 100 for score in scores.values())
    for evaluation in held_out.baselines().values():
        assert list(evaluation.scores) == list(task.metrics)


def test_every_task_has_a_fixture() -> None:
    assert set(PUBLISHED) == set(builtin_names())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_it_runs_from_published_files(
    name: str, family: str, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    PUBLISHED[name](data)
    task = find_task(name, data)
    check_data(task)
    run(task, tiny_models[family], tmp_path / "run")


#: Task → the folder of the reference data that holds its columns.
REAL = {
    "e2e": "e2e",
    "ner": "wnut17",
    "conll2003": "conll2003",
    "summarisation": "scitldr",
    "stsb": "glue_stsb",
    "sts": "stsb_zh",
    "qnli": "qnli_dev_split",
    "squad": "policyqa",
    "sst2": "glue_sst2",
    "mrpc": "glue_mrpc",
    "rte": "glue_rte",
    "cola": "cola",
    "trec": "trec",
    "ag-news": "ag_news",
    "translation-en-de": "multi30k",
    "translation-en-fr": "multi30k",
    "chinese-reviews": "waimai_zh",
}


def first_rows(source: Path, place: Path, rows: int = 12) -> None:
    """The beginning of each file of a folder."""
    place.mkdir()
    for file in source.iterdir():
        if ".csv" in file.name:
            with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
                kept = list(islice(csv.reader(stream), rows + 1))
            with gzip.open(place / file.name, "wt", encoding="utf-8", newline="") as out:
                csv.writer(out).writerows(kept)
        else:
            with gzip.open(file, "rt", encoding="utf-8") as stream:
                data = json.load(stream)
            article = data["data"][0]
            paragraph = article["paragraphs"][0]
            paragraph["qas"] = paragraph["qas"][:4]
            article["paragraphs"] = [paragraph]
            with gzip.open(place / file.name, "wt", encoding="utf-8") as out:
                json.dump({"data": [article]}, out)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", REAL)
def test_it_runs_on_real_rows(
    name: str, family: str, tmp_path: Path, tiny_models: dict[str, Path], shared_data: Path
) -> None:
    first_rows(shared_data / "tasks" / REAL[name], tmp_path / "data")
    run(find_task(name, tmp_path / "data"), tiny_models[family], tmp_path / "run")


def parquet(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_the_hubs_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the layout of the Hub's cache, without the Hub."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for repository, files in {
        "nyu-mll/glue": {"cola": [{"sentence": text, "label": n % 2} for n, text in enumerate(TRUTH)]},
        "rajpurkar/squad": {
            "plain_text": [
                {"question": "Who?", "context": text, "answers": {"text": [text[:3]], "answer_start": [0]}}
                for text in TRUTH
            ]
        },
        "eriktks/conll2003": {"conll2003": [{"tokens": ["Ada", "sat"], "ner_tags": [1, 0]}]},
        "aps/super_glue": {
            "multirc": [
                {"paragraph": a, "question": "Who?", "answer": b, "idx": {"question": 3}, "label": 1}
                for a, b in zip(TRUTH, OTHERS, strict=True)
            ]
        },
    }.items():
        place = cache / f"datasets--{repository.replace('/', '--')}"
        (place / "refs/refs/convert").mkdir(parents=True)
        (place / "refs/refs/convert/parquet").write_text("abc")
        for configuration, rows in files.items():
            for split in ("train", "validation", "test"):
                parquet(place / "snapshots/abc" / configuration / split / "0000.parquet", rows)
    cola = read_rows(find_task("cola"), "validation")
    assert [row.target for row in cola] == ["unacceptable", "acceptable"] * 2
    squad = read_rows(find_task("squad"), "train")
    assert (squad[2].references, squad[2].starts) == (("Ada",), (0,))
    assert read_rows(find_task("conll2003"), "test")[0].references == ("B-PER O",)
    assert {(row.target, row.group) for row in read_rows(find_task("multirc"), "train")} == {("True", "3")}
    with pytest.raises(UserError, match=r"no data set 'nyu-mll/glue': looked for in the Hub cache .*--data"):
        find_task("mnli")


def test_the_published_forms_are_read_as_they_are_meant(tmp_path: Path) -> None:
    def rows(name: str) -> Task:
        place = tmp_path / name
        place.mkdir()
        PUBLISHED[name](place)
        return find_task(name, place)

    mrpc = read_rows(rows("mrpc"), "train")
    assert mrpc[1].sources == (f'" {TRUTH[1]}', OTHERS[1]) and mrpc[1].target == "equivalent"
    assert len(read_rows(rows("qqp"), "train")) == 3, "a line that is cut off is left out"
    assert read_rows(rows("cola"), "train")[0].sources == (TRUTH[0],)
    squad = read_rows(rows("squad2"), "validation")
    assert [row.references for row in squad] == [("The cat",), ("mat", "the mat"), ("",)]
    assert squad[0].sources[0] == "Who sat on the mat?"
    ner = read_rows(rows("conll2003"), "train")
    assert [row.references[0] for row in ner] == ["B-PER O O B-LOC", "O O"] and ner[1].sources == ("# me",)
    assert [row.sources for row in read_rows(rows("ner"), "train")] == [("Ada lived",), ("London #",)]
    assert read_rows(rows("trec"), "test")[2].sources == ("What barked at André ?",)
    assert read_rows(rows("translation-en-de"), "validation")[3].target == OTHERS[3]
    turns = read_rows(rows("dialogue"), "train")
    assert turns[1].sources == (f"A: {TRUTH[0]} B: {OTHERS[0]}",) and turns[1].target == "Yes ."
    article = read_rows(rows("continuation"), "train")[0]
    assert " ".join(TRUTH * 6).startswith(f"{article.sources[0]} {article.target}")
    assert article.sources[0].endswith(".") and 30 <= len(article.sources[0].split()) <= 60
    multirc = read_rows(rows("multirc"), "train")
    assert [row.group for row in multirc[:4]] == ["1-0", "1-0", "2-0", "2-0"]
    record = read_rows(rows("record"), "train")[0]
    assert (record.references, record.starts) == (("The",), (0,))
    assert read_rows(rows("wsc"), "train")[0].sources == (TRUTH[0], "The cat", "it")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no task 'colla': give a TOML file, .*; did you mean 'cola'\?"):
        find_task("colla")
    with pytest.raises(UserError, match=r"task 'cola': .* has none of its files \(cola/train.*plain tables"):
        find_task("cola", tmp_path)
    with pytest.raises(UserError, match="there is no directory"):
        find_task("cola", tmp_path / "absent")
    with pytest.raises(UserError, match=r"task 'translation-en-fr' is not on the Hub: give a directory"):
        find_task("translation-en-fr")
    path = tmp_path / "task.toml"
    path.write_text("")
    with pytest.raises(UserError, match="names its files itself: leave --data out"):
        find_task(str(path), tmp_path)


def test_every_description_is_whole() -> None:
    for name in builtin_names():
        task = builtin_task(name)
        assert (
            task.about and task.files and all(any(split in files for split in SPLITS) for files in task.files)
        )
        for files in task.files:
            values = {**task.keys, **files}
            assert values["kind"] == task.keys["kind"]
