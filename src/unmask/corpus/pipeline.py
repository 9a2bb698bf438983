"""From input files to a clean corpus: the stages of a recipe, one after another, each of them resumable.

The recipe's steps are run in their order. Those that look at one document share a stage; each that compares
documents ends its stage by signing what it will compare, has stages of its own that compare, and begins the next
stage by dropping what they found. Every stage reads parts and writes parts, a task a part, each written beside
and then renamed, so that a stage that is stopped goes on with the parts that are missing, to the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets

from unmask import hub
from unmask.corpus import fineweb
from unmask.corpus.c4 import BadWords, C4Lines, PageLength, read_bad_words
from unmask.corpus.cleaning import Cleaner, CleaningStep
from unmask.corpus.contamination import Contamination, write_index
from unmask.corpus.duplicates import DropDuplicates, FindDuplicates, KeyKind, SignKeys, pieces_for
from unmask.corpus.executors import MakeExecutor, run_stage
from unmask.corpus.intake import ReadFiles, groups_of, read_part
from unmask.corpus.languages import Language, check_language
from unmask.corpus.ledger import Ledger
from unmask.corpus.near_duplicates import DropNearDuplicates, JoinNearDuplicates, SignShingles
from unmask.corpus.parts import ReadPart, WriteLedger, WritePart, WriteSplits, part_name
from unmask.corpus.reading import Layout, file_identity, input_files
from unmask.corpus.recipe import STEPS, CorpusRecipe
from unmask.errors import UserError
from unmask.locks import clear, locked

#: What a finished corpus is described by; its presence is what makes it finished.
MANIFEST = "corpus.json"
WORK = ".work"
CLAIM = "claim.json"
SPLITS = ("train", "validation")
# Steps that compare documents, by what they compare.
_KEYS: dict[str, KeyKind] = {"duplicate-urls": "url", "exact-duplicates": "text", "duplicate-lines": "line"}
_COMPARING = (*_KEYS, "near-duplicates")


@dataclass(frozen=True)
class Corpus:
    """A finished corpus.

    Attributes:
        directory: holds `train/` and `validation/`, gzipped JSON lines.
        recipe: table of the recipe that made it.
        inputs: the files that were read.
        ledger: what every step did.
    """

    directory: Path
    recipe: dict[str, Any]
    inputs: list[str]
    ledger: Ledger


def make_corpus(
    inputs: Iterable[str],
    out: Path,
    recipe: CorpusRecipe,
    execute: MakeExecutor,
    *,
    layout: Layout = Layout(),  # noqa: B008 (frozen)
    skip_corrupt: bool = False,
) -> Corpus:
    """Clean documents into `out`; a call that was interrupted is continued by the same call.

    Args:
        inputs: files, directories and globs, as `read_documents` takes them.
        out: a directory that is not there, is empty, or is this very corpus, begun or finished.
        recipe: the steps.
        execute: where tasks run (`executors`, `clusters`). The result does not depend on it.
        layout: how documents lie in the files.
        skip_corrupt: leave out files that cannot be read, and say so in the ledger; otherwise they end the run.

    Raises:
        UserError: inputs that cannot be read, a directory that holds something else, a missing list or
            evaluation file; another process is making this corpus.
    """
    files = input_files(inputs)
    claim = _claim(files, recipe, layout, skip_corrupt=skip_corrupt)
    _check_place(out)
    # Made here, so that a list that is missing is said before any work.
    cleaners = _Cleaners(recipe, out / WORK)
    with locked(out / WORK, str(out)):
        if (out / MANIFEST).is_file():
            finished = hub.read_json(out / MANIFEST)
            _check_claim(out, finished["claim"], claim)
            shutil.rmtree(out / WORK)
            return _corpus(out, finished)
        _begin(out, claim)
        if recipe.against:
            cleaners.index_evaluations()
        # Absolute: datatrove's steps ask their own process for the current directory.
        run = _Run((out / WORK).absolute(), recipe, execute)
        ledgers = run.all_stages(files, layout, cleaners, skip_corrupt=skip_corrupt)
        return _publish(out, claim, ledgers)


# --- the directory ---------------------------------------------------------------------------------------


def _claim(files: list[Path], recipe: CorpusRecipe, layout: Layout, *, skip_corrupt: bool) -> dict[str, Any]:
    """Everything that the result depends on."""
    lists = [recipe.bad_words] if recipe.bad_words else []
    return {
        "recipe": recipe.as_table(),
        "text_column": layout.text_column,
        "by_line": layout.by_line,
        "skip_corrupt": skip_corrupt,
        "inputs": [file_identity(file) for file in files],
        "lists": [
            file_identity(file) for file in [*lists, *(input_files(recipe.against) if recipe.against else [])]
        ],
    }


def _check_place(out: Path) -> None:
    if (out / MANIFEST).is_file() or (out / WORK / CLAIM).is_file():
        return
    if out.exists() and (not out.is_dir() or any(path.name != WORK for path in out.iterdir())):
        raise UserError(f"{out} exists and is no corpus of ours: choose another --out")


def _begin(out: Path, claim: dict[str, Any]) -> None:
    begun = out / WORK / CLAIM
    if begun.is_file() and any((out / WORK).glob("01-*")):
        _check_claim(out, hub.read_json(begun), claim)
        return
    if begun.is_file() and hub.read_json(begun) != claim:
        # An attempt that did not read its inputs to the end, for a corrupt one perhaps, binds nobody.
        clear(out / WORK)
    hub.write_json(begun, claim)


def _check_claim(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [name for name in now if before.get(name) != now[name]]
    if "recipe" in differing:
        differing += [key for key in now["recipe"] if before["recipe"].get(key) != now["recipe"][key]]
    if differing:
        raise UserError(
            f"{out} holds a corpus made with others of these: {', '.join(differing)}; "
            "give another --out, or delete it"
        )


def _publish(out: Path, claim: dict[str, Any], ledgers: Iterator[Ledger]) -> Corpus:
    finished = {"claim": claim, "ledger": Ledger.total(ledgers).as_json()}
    for split in SPLITS:
        made = out / WORK / "output" / split
        # What a killed writer had begun: its task was done again under another name.
        for unfinished in made.glob(".*"):
            unfinished.unlink()
        if made.exists() and any(made.iterdir()):
            made.rename(out / split)
    hub.write_json(out / MANIFEST, finished)
    shutil.rmtree(out / WORK)
    return _corpus(out, finished)


def _corpus(out: Path, finished: dict[str, Any]) -> Corpus:
    claim = finished["claim"]
    inputs = [path for path, *_ in claim["inputs"]]
    return Corpus(out, claim["recipe"], inputs, Ledger.from_json(finished["ledger"]))


# --- the stages ------------------------------------------------------------------------------------------


class _Run:
    """The stages of a run, in their folders below `work`."""

    def __init__(self, work: Path, recipe: CorpusRecipe, execute: MakeExecutor) -> None:
        self._work = work
        self._recipe = recipe
        self._execute = execute
        self._stages = 0

    def all_stages(
        self, files: list[Path], layout: Layout, cleaners: _Cleaners, *, skip_corrupt: bool
    ) -> Iterator[Ledger]:
        """Run all stages; gives the ledgers of all tasks, in the order of stages and parts."""
        parts, folder = self._read(files, layout, skip_corrupt=skip_corrupt)
        ledgers = [folder / f"{rank:05}.json" for rank in range(len(groups_of(files)))]
        drop: Callable[[Ledger], PipelineStep] | None = None
        for names, comparing in _segments(self._recipe.steps):
            ledger = Ledger()
            steps: list[PipelineStep] = [ReadPart(parts)]
            if drop is not None:
                steps.append(drop(ledger))
            steps += [CleaningStep(name, cleaners.make(name, ledger), ledger) for name in names]
            label = "cleaning" if names else "dropping"
            if comparing is None:
                folder = self._folder("write")
                share = self._recipe.validation_share
                steps += [WriteSplits(self._work / "output", share, ledger), WriteLedger(folder, ledger)]
                self._stage(label, steps, len(parts), folder)
            else:
                parts, folder, drop = self._compare(label, steps, comparing, len(parts), ledger)
            ledgers += [folder / f"{rank:05}.json" for rank in range(len(parts))]
        return (Ledger.from_json(hub.read_json(file)) for file in ledgers)

    def _read(self, files: list[Path], layout: Layout, *, skip_corrupt: bool) -> tuple[list[Path], Path]:
        folder = self._folder("read")
        groups = groups_of(files)
        reader = ReadFiles(groups, layout, skip_corrupt=skip_corrupt, folder=folder)
        self._stage("reading", [reader], len(groups), folder)
        # Files are named, never listed: on a cluster a listing may lack what another node has just written.
        parts = [
            read_part(folder, group, part)
            for group in range(len(groups))
            for part in range(hub.read_json(folder / f"{group:05}.json")["parts"])
        ]
        if not parts:
            more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
            raise UserError(f"no document has any text in {files[0]}{more}")
        return parts, folder

    def _compare(
        self, label: str, steps: list[PipelineStep], name: str, parts: int, ledger: Ledger
    ) -> tuple[list[Path], Path, Callable[[Ledger], PipelineStep]]:
        """A stage that ends by signing, and the stages that compare.

        Returns:
            the parts that it wrote, the folder of its ledgers, and what makes the step that drops what was found.
        """
        folder = self._folder(f"before-{name}")
        steps = [*steps, WritePart(folder)]
        written = [folder / part_name(rank) for rank in range(parts)]
        if name in _KEYS:
            kind = _KEYS[name]
            steps += [SignKeys(folder / "keys", kind), WriteLedger(folder, ledger)]
            self._stage(label, steps, parts, folder)
            found = self._folder(name)
            pieces = pieces_for(folder / "keys", parts)
            self._stage(f"finding {name}", [FindDuplicates(folder / "keys", parts, found)], pieces, found)
            recount = "c4" in self._recipe.steps[: self._recipe.steps.index(name)]
            return (
                written,
                folder,
                lambda ledger: DropDuplicates(name, found, pieces, kind, ledger, recount=recount),
            )
        config = MinhashConfig(
            n_grams=self._recipe.shingle_words,
            num_buckets=self._recipe.minhash_buckets,
            hashes_per_bucket=self._recipe.minhash_hashes,
        )
        # The signing step takes what it is given and hands nothing on: it is the last.
        steps += [WriteLedger(folder, ledger), SignShingles(folder / "signatures", config)]
        self._stage(label, steps, parts, folder)
        pairs = self._folder("near-duplicates-pairs")
        buckets = MinhashDedupBuckets(str(folder / "signatures"), str(pairs / "pairs"), config=config)
        self._stage("finding near-duplicates", [buckets], config.num_buckets, pairs)
        clusters = self._folder("near-duplicates")
        cluster = JoinNearDuplicates(str(pairs / "pairs"), str(clusters / "remove"), config=config)
        self._stage("joining near-duplicates", [cluster], 1, clusters)
        return written, folder, lambda ledger: DropNearDuplicates(name, clusters / "remove", ledger)

    def _folder(self, name: str) -> Path:
        folder = self._work / f"{self._stages:02}-{name}"
        self._stages += 1
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stage(self, label: str, steps: list[PipelineStep], tasks: int, folder: Path) -> None:
        run_stage(self._execute, label, steps, tasks, folder / "log")


def _segments(steps: tuple[str, ...]) -> Iterator[tuple[list[str], str | None]]:
    """The steps cut after each one that compares: (steps for one document, the comparing one or None)."""
    names: list[str] = []
    for step in steps:
        if step in _COMPARING:
            yield names, step
            names = []
        else:
            names.append(step)
    yield names, None


class _Cleaners:
    """The steps for one document, by name.

    Raises:
        UserError: the list of bad words is missing or empty, or nobody can tell the language from others.
    """

    def __init__(self, recipe: CorpusRecipe, work: Path) -> None:
        self._recipe = recipe
        self._index = work / "evaluations.npz"
        self._bad_words = read_bad_words(recipe.bad_words) if recipe.bad_words else []
        if "language" in recipe.steps:
            check_language(recipe.language)

    def index_evaluations(self) -> None:
        if not self._index.is_file():
            write_index(self._recipe.against, self._recipe.evaluation_words, self._index)

    def make(self, name: str, ledger: Ledger) -> Cleaner:
        recipe = self._recipe
        table: dict[str, Callable[[], Cleaner]] = {
            "repair": fineweb.repaired_unicode,
            "page-length": lambda: PageLength(recipe.page_length),
            "c4": C4Lines,
            "language": lambda: Language(recipe.language, recipe.language_probability, ledger),
            "gopher-repetition": fineweb.gopher_repetition,
            "gopher-quality": fineweb.gopher_quality,
            "fineweb-c4": fineweb.c4_without_end_marks,
            "fineweb-quality": fineweb.fineweb_quality,
            "bad-words": lambda: BadWords(self._bad_words, recipe.language),
            "decontaminate": lambda: Contamination(self._index),
            "personal-data": fineweb.personal_data,
        }
        assert set(table) | set(_COMPARING) == set(STEPS)
        return table[name]()
