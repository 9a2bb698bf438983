"""What cleans a corpus: the steps in their order, and their settings, in TOML or as flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

from unmask.errors import UserError
from unmask.settings import from_table, nearest, read_toml

#: Every step, in the order in which one that is switched on is put among those of a recipe.
STEPS = {
    "repair": "Unicode repair (ftfy)",
    "page-length": "long pages (C4)",
    "duplicate-urls": "one page an address (C4)",
    "exact-duplicates": "equal texts",
    "c4": "C4's rules for lines and pages",
    "language": "language (langdetect)",
    "gopher-repetition": "repetition (Gopher)",
    "gopher-quality": "quality (Gopher)",
    "fineweb-c4": "C4's rules as in FineWeb",
    "fineweb-quality": "quality (FineWeb)",
    "duplicate-lines": "lines that came before, in any document",
    "bad-words": "a list of words (C4)",
    "near-duplicates": "near copies (MinHash)",
    "decontaminate": "texts of an evaluation",
    "personal-data": "e-mail and IP addresses replaced",
}
_ENGLISH = ("gopher-quality", "fineweb-c4", "fineweb-quality")


@dataclass(frozen=True, kw_only=True)
class CorpusRecipe:
    """Settings of `unmask corpus`. A setting means something where its step is among the steps.

    Attributes:
        steps: names of steps, in the order in which they run.
        language: (language, bad-words) the language to keep, as langdetect calls it: en, de, zh-cn, …
        language_probability: (language) the least that langdetect must give it.
        page_length: (page-length) characters above which a page is dropped.
        bad_words: (bad-words) a file, one word a line.
        shingle_words: (near-duplicates) words of a shingle.
        minhash_buckets: (near-duplicates) buckets; a pair that agrees in one of them is a near copy.
        minhash_hashes: (near-duplicates) hashes of a bucket. A pair of similarity s is found with the
            probability 1 - (1 - s^hashes)^buckets: for 14 and 8, 77 % at 0.75, 92 % at 0.8.
        against: (decontaminate) files of evaluations.
        evaluation_words: (decontaminate) words in a row that must not be shared.
        validation_share: share of documents, chosen by a hash of their text, that goes to validation.
    """

    steps: tuple[str, ...] = ()
    language: str = "en"
    language_probability: float = 0.99
    page_length: int = 190_000
    bad_words: Path | None = None
    shingle_words: int = 5
    minhash_buckets: int = 14
    minhash_hashes: int = 8
    against: tuple[str, ...] = ()
    evaluation_words: int = 13
    validation_share: float = 0.01

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise UserError(f"no step {step!r}{nearest(step, STEPS)}")
            if self.steps.count(step) > 1:
                raise UserError(f"the step {step} is there twice")
        if "bad-words" in self.steps and self.bad_words is None:
            raise UserError("the step bad-words needs a list: --bad-words FILE, or --without bad-words")
        if "decontaminate" in self.steps and not self.against:
            raise UserError("the step decontaminate needs evaluation files: --against FILE …")
        english = [step for step in self.steps if step in _ENGLISH]
        if english and self.language != "en":
            raise UserError(f"the step {english[0]} is made for English, language is {self.language!r}")
        for name in ("page_length", "shingle_words", "minhash_buckets", "minhash_hashes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.evaluation_words < 8:
            raise UserError(f"evaluation_words is {self.evaluation_words}, it must be at least 8")
        if not 0 <= self.language_probability <= 1:
            raise UserError(f"language_probability is {self.language_probability}, it must be from 0 to 1")
        if not 0 <= self.validation_share < 1:
            raise UserError(f"validation_share is {self.validation_share}, it must be from 0 up to 1")

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        add: Iterable[str] = (),
        without: Iterable[str] = (),
        overrides: dict[str, Any] | None = None,
    ) -> Self:
        """A shipped recipe (c4, fineweb, none) or a TOML file, with steps switched on or off.

        Raises:
            UserError: no such recipe, a misspelt key or step, a wrong value, a step to leave out that is not
                in the recipe.
        """
        table, where = _read(name_or_path)
        steps = list(table.get("steps", []))
        for step in without:
            if step not in steps:
                raise UserError(f"--without {step}: the recipe has no such step{nearest(step, steps)}")
            steps.remove(step)
        for step in add:
            if step not in steps:
                steps.insert(_place_of(step, steps), step)
        return from_table(cls, table | (overrides or {}) | {"steps": steps}, where)

    def as_table(self) -> dict[str, Any]:
        """As JSON takes it."""
        bad_words = None if self.bad_words is None else str(self.bad_words)
        return dataclasses.asdict(self) | {
            "steps": list(self.steps),
            "against": list(self.against),
            "bad_words": bad_words,
        }


def _place_of(step: str, steps: list[str]) -> int:
    """Before the first step that comes later in the order of `STEPS`."""
    order = list(STEPS)
    later = [place for place, other in enumerate(steps) if order.index(other) > order.index(step)]
    return later[0] if later else len(steps)


def shipped_recipes() -> dict[str, Path]:
    """The recipes in the package: name → file."""
    folder = Path(str(resources.files("unmask") / "recipes" / "corpus"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _read(name_or_path: str) -> tuple[dict[str, Any], str]:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return read_toml(path), str(path)
    shipped = shipped_recipes()
    if name_or_path not in shipped:
        raise UserError(
            f"no recipe {name_or_path!r}: neither a TOML file nor shipped{nearest(name_or_path, shipped)}"
        )
    return read_toml(shipped[name_or_path]), f"recipe {name_or_path}"
