"""C4's cleaning rules, as its published code applies them (Raffel et al. 2020, section 2.2, and
`tensorflow_datasets/text/c4_utils.py`, which differs from the paper's text)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from datatrove.data import Document

from unmask.corpus.cleaning import Drop
from unmask.corpus.ledger import StepLedger, around
from unmask.errors import UserError

MIN_SENTENCES = 3
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_END_MARKS = (".", "?", "!", '"')
_POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
# Languages that write no spaces: a word of theirs is looked for anywhere.
_UNSPACED = ("ja", "th", "zh")


class PageLength:
    """Drops pages of more than `limit` characters, 190,000 in C4."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        is_long = len(document.text) > self._limit
        return Drop(f"more than {self._limit:,} characters") if is_long else None


class C4Lines:
    """C4's rules for lines and pages, line by line in the order of its code.

    A line is stripped, then dropped if a word has more than 1,000 characters; `[12]`, `[edit]` and
    `[citation needed]` are deleted; it is dropped unless it ends in `.`, `?`, `!` or `"`, if it ends in `...`,
    or if it has fewer than five words. Of what is left, *lorem ipsum* drops the page, *javascript* the line,
    `{` the page, a phrase about cookies or terms of use the line. A page of fewer than three sentences is
    dropped. So a `{` on a line that was already dropped does not drop its page.
    """

    MIN_WORDS = 5
    MAX_WORD_LENGTH = 1000

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        kept: list[str] = []
        for raw in document.text.splitlines():
            line = raw.strip()
            rule = self._dropped_before_citations(line)
            if rule is None:
                line = _CITATION.sub("", line)
                rule = self._dropped(line)
            if rule is not None:
                step.drop_line(rule, document.id, raw)
                continue
            lowered = line.lower()
            if "lorem ipsum" in lowered:
                return Drop("lorem ipsum", around(line, lowered.index("lorem ipsum")))
            if "javascript" in lowered:
                step.drop_line("line: javascript", document.id, raw)
                continue
            if "{" in line:
                return Drop("curly bracket", around(line, line.index("{")))
            if any(policy in lowered for policy in _POLICIES):
                step.drop_line("line: policy", document.id, raw)
                continue
            kept.append(line)
        if not has_sentences(kept, MIN_SENTENCES):
            return Drop(f"fewer than {MIN_SENTENCES} sentences")
        document.text = "\n".join(kept).strip()
        return None

    def _dropped_before_citations(self, line: str) -> str | None:
        # A long word needs a long line: most lines are spared the split.
        if len(line) > self.MAX_WORD_LENGTH and max(map(len, line.split())) > self.MAX_WORD_LENGTH:
            return "line: word too long"
        return None

    def _dropped(self, line: str) -> str | None:
        if not line.endswith(_END_MARKS) or line.endswith("..."):
            return "line: no end mark"
        if len(line.split(None, self.MIN_WORDS)) < self.MIN_WORDS:
            return "line: too few words"
        return None


def has_sentences(lines: Iterable[str], at_least: int) -> bool:
    """Whether the lines have that many sentences, counted line by line.

    Every line that C4 keeps is at least one sentence, so only pages of fewer lines are looked at closely, by
    spaCy's rules for English (C4 used NLTK's trained Punkt, which has to be downloaded; they differ in
    abbreviations).
    """
    lines = [line for line in lines if line.strip()]
    if len(lines) >= at_least:
        return True
    if not lines:
        return at_least <= 0
    from datatrove.utils.text import split_into_sentences

    return sum(len(split_into_sentences(line)) for line in lines) >= at_least


def normalised_url(url: str) -> str:
    """The address that C4 compares pages by: without scheme, `www.`, tracking parameters and last slashes."""
    url = re.sub(r"https?://(www\.)?", "", url)
    return re.sub(r"\?(utm_|ref|feed).*", "", url).rstrip("/")


class BadWords:
    """Drops pages that contain a word of a list, whatever the case.

    Args:
        words: the list; a word counts where no letter, digit or underscore touches it.
        language: code of the documents' language; in Japanese, Thai and Chinese a word counts anywhere.
    """

    def __init__(self, words: list[str], language: str) -> None:
        choices = "|".join(re.escape(word.lower()) for word in words)
        anywhere = language.split("-")[0] in _UNSPACED
        self._pattern = re.compile(choices if anywhere else rf"(?:\W|^)(?:{choices})(?:\W|$)")

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        lowered = document.text.lower()
        found = self._pattern.search(lowered)
        return Drop("bad word", around(lowered, found.start())) if found else None


def read_bad_words(file: Path) -> list[str]:
    """The words of a list, one a line.

    Raises:
        UserError: the file is missing, not UTF-8, or holds no word.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the bad-words list {file} cannot be read: {error}") from None
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise UserError(f"the bad-words list {file} is empty: give one word a line")
    return words
