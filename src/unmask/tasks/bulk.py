"""Many texts through a model: in windows, in bounded memory, continued where a killed run stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.tasks.results import ResultsFile, check_results_path
from unmask.tasks.texts import Survey, TextFile, Texts, survey
from unmask.tasks.windows import WINDOW, windows
from unmask.training.progress import Progress
from unmask.training.runs import check_place, claim_run

#: What a directory of results is of.
JOB = "job.json"

#: (texts, number of the first of them) → lines without their ends, as many for each text.
Answer = Callable[[Sequence[str], int], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Bulk:
    """A job over many texts.

    Attributes:
        answer: what is done with a window of texts. Its lines may depend on the texts of the window and on
            their numbers, on nothing else: then a job that was killed ends with the same bytes.
        settings: JSON values that say what the answers depend on: the model, its options.
        lines_each: lines of an answer for each text.
        window: texts that are read, answered and saved together.
        label: what the progress line calls the job.
    """

    answer: Answer
    settings: Mapping[str, Any] = field(default_factory=dict)
    lines_each: int = 1
    window: int = WINDOW
    label: str = "texts"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UserError(f"window={self.window} must be at least 1")

    def lines(self, texts: Texts) -> Iterator[str]:
        """The answers as they come, a window at a time."""
        empty = True
        for first, window in windows(texts, self.window):
            empty = False
            yield from self.answer(window, first)
        if empty:
            raise UserError(f"{texts.name} is empty: there is nothing to do")

    def to_file(self, texts: Texts, path: Path) -> None:
        """Write the answers for all texts into a file, which is there when they are whole.

        The texts are read once before, so that what cannot be read is said at the beginning. Standard input
        can be read only once: a job over it begins anew.

        Raises:
            UserError: the file cannot be written, a job with other settings or texts was begun there, a text
                cannot be read, no text at all.
            KeyboardInterrupt: with a message that says how far it came.
        """
        check_results_path(path)
        seen = survey(texts) if texts.again else None
        with Progress(self.label, 0, seen.count if seen else None, "texts") as progress, _told(progress):
            self._to_file(texts, path, seen, progress)

    def to_directory(self, files: Sequence[TextFile], directory: Path, suffix: str) -> None:
        """Write a file of answers for each file of texts, under the same name in a directory.

        Files that are whole are left alone when the job is continued.

        Args:
            suffix: what the names of results end in, such as `.jsonl`.

        Raises:
            UserError: as for `to_file`; two files of one name; results of something else in their place.
        """
        check_place(directory)
        if not directory.parent.is_dir():
            raise UserError(f"{directory} cannot be made: there is no directory {directory.parent}")
        places = _places(files, directory, suffix)
        seen = {file: survey(file) for file in files}
        digests = {str(path.relative_to(directory)): seen[file].digest for path, file in places.items()}
        if not (directory / JOB).is_file():
            _check_free(places)
        claim_run(directory, {**self.settings, "inputs": digests}, JOB)
        with (
            Progress(self.label, 0, sum(one.count for one in seen.values()), "texts") as progress,
            _told(progress),
        ):
            for path, file in places.items():
                if path.exists() and not path.with_name(f"{path.name}.partial").exists():
                    progress.skip(seen[file].count)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                self._to_file(file, path, seen[file], progress)

    def _to_file(self, texts: Texts, path: Path, seen: Survey | None, progress: Progress) -> None:
        settings = {**self.settings, "input": None if seen is None else seen.digest}
        with ResultsFile(path, settings, anew=seen is None) as results:
            if results.is_finished:
                progress.skip(seen.count if seen else 0)
            else:
                self._fill(results, texts, progress)
            results.finish()

    def _fill(self, results: ResultsFile, texts: Texts, progress: Progress) -> None:
        done = results.lines() // self.lines_each
        resumed = False
        for first, window in windows(texts, self.window):
            if first + len(window) <= done:
                progress.skip(len(window))
                continue
            if not resumed:
                # Half a window is done again whole: its batches are then the same.
                results.keep(first * self.lines_each)
                resumed = True
            results.write(self.answer(window, first))
            progress.advance(len(window), len(window))
            progress.show({})


@contextmanager
def _told(progress: Progress) -> Iterator[None]:
    """An interruption says how far the job came."""
    try:
        yield
    except KeyboardInterrupt:
        of = (
            ""
            if progress.steps is None
            else f" of {progress.steps}, saved: the same command continues from here"
        )
        raise KeyboardInterrupt(f"{progress.label}: stopped after {progress.done}{of}") from None


def _places(files: Sequence[TextFile], directory: Path, suffix: str) -> dict[Path, TextFile]:
    """Where the results of each file go."""
    places: dict[Path, TextFile] = {}
    for file in files:
        name = file.relative.name
        stem = name[: -len(".gz")] if name.lower().endswith(".gz") else name
        path = directory / file.relative.parent / f"{Path(stem).stem}{suffix}"
        if path in places:
            raise UserError(
                f"{places[path].path} and {file.path} would both be answered in {path}: "
                "give them one after another, with an --out for each"
            )
        if path.exists() and path.samefile(file.path):
            raise UserError(f"{path} is an input: give another --out")
        places[path] = file
    return places


def _check_free(places: Mapping[Path, TextFile]) -> None:
    for path in places:
        if path.exists():
            raise UserError(f"{path} is there already, of another job: give another --out, or delete it")
