"""Which language a document is in, by langdetect, as C4 asked it."""

from __future__ import annotations

from functools import cache
from typing import Any

from datatrove.data import Document

from unmask.corpus.cleaning import Drop
from unmask.corpus.ledger import Ledger, StepLedger
from unmask.errors import UserError

UNKNOWN = "unknown"


class Language:
    """Keeps documents whose most probable language is the wanted one.

    Args:
        code: langdetect's name of the language: ISO 639-1, and zh-cn or zh-tw for Chinese.
        probability: the least that langdetect must give it; C4: 0.99.
        ledger: counts the languages.

    Raises:
        UserError: langdetect does not know the language.
    """

    def __init__(self, code: str, probability: float, ledger: Ledger) -> None:
        check_language(code)
        self._code = code
        self._probability = probability
        self._ledger = ledger

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        language, probability = detected_language(document.text)
        self._ledger.languages[language] += 1
        if language != self._code:
            return Drop(f"not {self._code}")
        return None if probability >= self._probability else Drop(f"{self._code} below {self._probability:g}")


def check_language(code: str) -> None:
    """Raises:
    UserError: langdetect does not know the language.
    """
    known = _factory().langlist
    if code not in known:
        raise UserError(f"langdetect knows no language {code!r}; it knows {', '.join(sorted(known))}")


def detected_language(text: str) -> tuple[str, float]:
    """The most probable language and its probability; `unknown` where a text has no letters."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _factory().create()
    # It draws at random: without a seed, the same text gives another probability each time.
    detector.seed = 0
    detector.append(text)
    try:
        best = detector.get_probabilities()[0]
    except (LangDetectException, IndexError):
        return UNKNOWN, 0.0
    return best.lang, best.prob


@cache
def _factory() -> Any:
    from langdetect import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    return factory
