"""A long stream of texts in windows: what is read, sorted and saved together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: Inputs of a window. Sorting by length needs some hundreds; what is lost when a process is killed is one.
WINDOW = 512
#: A window of long texts ends before that many: characters.
CHARACTERS = 4_000_000


def windows(
    texts: Iterable[str], size: int = WINDOW, characters: int = CHARACTERS
) -> Iterator[tuple[int, list[str]]]:
    """Cut a stream into windows; where it is cut depends on the stream alone.

    At no time is more than one window read.

    Args:
        size: the most texts of a window.
        characters: a window ends with the text that reaches so many.

    Yields:
        The number of the window's first text, from 0, and its texts.
    """
    first, window, held = 0, list[str](), 0
    for text in texts:
        window.append(text)
        held += len(text)
        if len(window) == size or held >= characters:
            yield first, window
            first, window, held = first + len(window), [], 0
    if window:
        yield first, window
