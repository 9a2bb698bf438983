"""The tasks that are built in: published sets by name, from a directory of their files or from the Hub.

Each is a TOML file in `builtin/`: the keys of a task, `about`, `hub` (a data set's name there), and a table `[[files]]`
for each way in which the set is published, whose keys replace the task's. The first of them is the Hub's where there is
one. A directory may also hold plain tables (`train.csv`, `dev.jsonl.gz`, …) with the task's own columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask import hub
from unmask.errors import UserError
from unmask.settings import nearest, read_toml
from unmask.tasks.tables import SUFFIXES
from unmask.tasks.task import SPLITS, Split, Task, load_task, task_from

BUILTIN = Path(__file__).parent / "builtin"
#: What the file of a split is called in a directory of plain tables.
NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
#: The Hub keeps every data set as Parquet on this branch: CONFIGURATION/SPLIT/NUMBER.parquet.
PARQUET = "refs/convert/parquet"


@dataclass(frozen=True)
class BuiltinTask:
    """A task that is built in.

    Attributes:
        name: it is asked for by.
        about: what it is, in a line.
        hub: the data set's name on the Hub; None: it is not there.
        keys: of the task.
        files: for each way in which it is published, what differs.
    """

    name: str
    about: str
    hub: str | None
    keys: Mapping[str, Any]
    files: tuple[Mapping[str, Any], ...]

    def task(self, directory: Path) -> Task:
        """The task with the files of a directory.

        Raises:
            UserError: no file of it is there.
        """
        if not directory.is_dir():
            raise UserError(f"task {self.name!r}: there is no directory {directory}")
        for layout in (*self.files, {}):
            found = dict(self._found(directory, layout))
            if found:
                rest = {key: value for key, value in layout.items() if key not in SPLITS}
                values = {"name": self.name, **self.keys, **rest, **found}
                return task_from(values, f"task {self.name!r}", directory)
        first = ", ".join(f"{NAMES[split][0]}.csv" for split in SPLITS)
        ways = "; ".join(
            ", ".join(str(layout[split]) for split in SPLITS if split in layout) for layout in self.files
        )
        raise UserError(
            f"task {self.name!r}: {directory} has none of its files ({ways}), nor plain tables ({first} or the like)"
        )

    def _found(self, directory: Path, layout: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Split → path in the directory, of the splits that are there."""
        format = layout.get("format", self.keys.get("format"))
        for split in SPLITS:
            names = [layout[split]] if split in layout else [] if layout else _plain(split, format)
            for name in names:
                if _exists(directory, name, format):
                    yield split, name
                    break

    def from_hub(self) -> Task:
        """The task with the files of the Hub, from its cache where they are there.

        Raises:
            UserError: it is not on the Hub, or that cannot be reached.
        """
        if self.hub is None:
            raise UserError(
                f"task {self.name!r} is not on the Hub: give a directory of its files with --data"
            )
        patterns = [str(self.files[0][split]) for split in SPLITS if split in self.files[0]]
        return self.task(hub.find_dataset(self.hub, revision=PARQUET, patterns=patterns))


def _plain(split: Split, format: str | None) -> list[str]:
    endings = (*SUFFIXES, ".txt") if format else SUFFIXES
    return [
        f"{name}{ending}{packed}" for name in NAMES[split] for ending in endings for packed in ("", ".gz")
    ]


def _exists(directory: Path, name: str, format: str | None) -> bool:
    if format == "parallel":
        sides = [file for file in directory.glob(f"{name}.*") if file.suffix not in (*SUFFIXES, ".gz")]
        return len(sides) > 1
    return any(directory.glob(name))


def builtin_names() -> list[str]:
    """What the tasks that are built in are called."""
    return sorted(file.stem for file in BUILTIN.glob("*.toml"))


def builtin_task(name: str) -> BuiltinTask:
    """A task that is built in.

    Raises:
        UserError: there is none of that name.
    """
    if name not in builtin_names():
        raise UserError(
            f"no task {name!r}: give a TOML file, or the name of a task that is built in"
            f"{nearest(name, builtin_names())}"
        )
    values = read_toml(BUILTIN / f"{name}.toml")
    files = tuple(values.pop("files"))
    return BuiltinTask(name, values.pop("about"), values.pop("hub", None), values, files)


def find_task(name_or_path: str, data: Path | None = None) -> Task:
    """A task from its TOML file, or one that is built in.

    Args:
        data: the directory of a built-in task's files; None: they are fetched from the Hub.

    Raises:
        UserError: no such task, or files that are not there.
    """
    path = Path(name_or_path)
    if path.is_file() and path.suffix.lower() in (*SUFFIXES, ".gz"):
        raise UserError(f"{path} is a table: make a task of it first (unmask task new {path})")
    if path.suffix == ".toml" or path.is_file():
        if data is not None:
            raise UserError(f"{path} names its files itself: leave --data out")
        return load_task(path)
    found = builtin_task(name_or_path)
    return found.from_hub() if data is None else found.task(data)
