"""FineWeb's rules (Penedo et al. 2024): datatrove's own filters, with the settings of the published recipe."""

from __future__ import annotations

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.pipeline.formatters.base import BaseFormatter
from datatrove.pipeline.formatters.ftfy import FTFYFormatter
from datatrove.pipeline.formatters.pii import PIIFormatter

from unmask.corpus.cleaning import Drop
from unmask.corpus.ledger import StepLedger


class FilterOf:
    """A filter of datatrove as a cleaner."""

    def __init__(self, inner: BaseFilter) -> None:
        self._filter = inner

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        keep, reason = get_filter_result(self._filter.filter(document))
        return None if keep else Drop((reason or "dropped").replace("_", " "))


class FormatterOf:
    """A formatter of datatrove as a cleaner; drops what it leaves empty."""

    def __init__(self, inner: BaseFormatter) -> None:
        self._formatter = inner

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        document.text = self._formatter.format(document.text)
        return None if document.text.strip() else Drop("nothing left")


def gopher_repetition() -> FilterOf:
    """Repeated lines, paragraphs and runs of words (Rae et al. 2021, table A1)."""
    return FilterOf(GopherRepetitionFilter())


def gopher_quality() -> FilterOf:
    """Number and length of words, symbols, bullets, English stop words (Rae et al. 2021, appendix A.1.1)."""
    return FilterOf(GopherQualityFilter())


def c4_without_end_marks() -> FilterOf:
    """datatrove's reading of C4's rules, lines without an end mark kept: five sentences, three words a line."""
    return FilterOf(C4QualityFilter(filter_no_terminal_punct=False))


def fineweb_quality() -> FilterOf:
    """Lines that end in punctuation, short lines, repeated characters, newlines a word."""
    return FilterOf(FineWebQualityFilter())


def personal_data() -> FormatterOf:
    """Addresses of e-mail and public IP addresses replaced by invented ones."""
    return FormatterOf(PIIFormatter())


def repaired_unicode() -> FormatterOf:
    """Text decoded with the wrong encoding put right, control characters and entities resolved, by ftfy.

    Quotes, ligatures and widths stay as they were written.
    """
    return FormatterOf(FTFYFormatter(fix_line_breaks=True))
