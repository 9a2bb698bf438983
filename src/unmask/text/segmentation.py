"""The hook for languages that need more than spaces to tell words apart: a segmenter, known by its name.

A segmenter is a function from a text to its words, in their order. It runs before WordPiece's own pipeline, on the
text as it is, and no piece crosses its words. A tokenizer keeps the segmenter's *name*, and finds the function
again when it is loaded:

- among those that this process registered (`register_segmenter`), or
- among the entry points of the installed packages, group `unmask.segmenters`.

So a tokenizer that came from elsewhere can never name code that its user did not install as a segmenter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points

from unmask.errors import UserError

#: The words of a text, in their order. White space, and what else it leaves out, separates.
Segmenter = Callable[[str], Iterable[str]]

ENTRY_POINTS = "unmask.segmenters"
_registered: dict[str, Segmenter] = {}


def register_segmenter(name: str, segmenter: Segmenter) -> None:
    """Make a segmenter known to this process by a name, in the place of any other of that name."""
    _registered[name] = segmenter


def find_segmenter(name: str) -> Segmenter:
    """The segmenter of a name: one that was registered, or a package's entry point.

    Raises:
        UserError: there is none, or its package cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    installed = entry_points(group=ENTRY_POINTS)
    if name not in installed.names:
        known = sorted({*_registered, *installed.names})
        raise UserError(
            f"there is no segmenter {name!r} (known: {', '.join(known) or 'none'}): install a package that has it "
            f"as an entry point of {ENTRY_POINTS}, or register it in Python with register_segmenter"
        )
    try:
        found: Segmenter = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"the segmenter {name!r} cannot be loaded: {error}") from None
    return found


@dataclass(frozen=True)
class Word:
    """A word and the character of its text at which it starts."""

    text: str
    start: int


class Segmentation:
    """Texts cut into words by a named segmenter, around names that stay whole.

    Args:
        name: the segmenter's.
        whole: names, of special tokens, that the segmenter never sees.

    Raises:
        UserError: there is no such segmenter.
    """

    def __init__(self, name: str, whole: Iterable[str] = ()) -> None:
        self.name = name
        self._whole = sorted(whole, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, self._whole))})") if self._whole else None
        self._segmenter = find_segmenter(name)

    def __reduce__(self) -> tuple[type[Segmentation], tuple[str, list[str]]]:
        # Functions need not pickle; names do.
        return Segmentation, (self.name, self._whole)

    def words(self, text: str) -> list[Word]:
        """The words of a text.

        Raises:
            UserError: the segmenter gives something that is not next in the text.
        """
        words: list[Word] = []
        start = 0
        # Every other part is one of the names.
        for index, part in enumerate(self._split.split(text) if self._split else [text]):
            if index % 2:
                words.append(Word(part, start))
            else:
                words += [Word(word.text, start + word.start) for word in self._part(part)]
            start += len(part)
        return words

    def _part(self, text: str) -> list[Word]:
        words: list[Word] = []
        end = 0
        for word in self._segmenter(text):
            if not word.strip():
                continue
            start = text.find(word, end)
            if start < 0:
                raise UserError(
                    f"the segmenter {self.name!r} gave {word!r}, which is not in the text after character {end} "
                    f"({text[max(0, end - 20) : end + 20]!r}): words must be parts of the text, in their order"
                )
            words.append(Word(word, start))
            end = start + len(word)
        return words
