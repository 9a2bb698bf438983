"""Texts to results in lines: what `unmask generate` writes, and how."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Literal

from unmask.errors import UserError
from unmask.generation.output import Hypothesis
from unmask.tasks.writing import TextWriter

logger = logging.getLogger("unmask")

Format = Literal["txt", "jsonl"]


class LineWriter:
    """A writer whose results are lines: a `bulk.Answer`.

    In format txt each result is a line, line breaks in it turned into spaces; with scores, its score and a tab
    stand before it. The results for a text follow each other, best first. In format jsonl each text is one
    object: `{"source": …, "results": [{"text": …}, …]}`, where a result that was cut off by the limit has
    `"complete": false`, and with scores each has `score`, `tokens` and `token_scores`.

    Attributes:
        written, cut_off: how many results there were, and how many of them were cut off by the limit.
    """

    def __init__(self, writer: TextWriter, kind: Format, *, constrained: bool) -> None:
        """Args:
        constrained: a result that is cut off is not what was asked for. Where all of the first window are, the
            constraint cannot be met, and that is an error.
        """
        self.writer, self.kind, self.constrained = writer, kind, constrained
        self.written = self.cut_off = 0

    @property
    def lines_each(self) -> int:
        """Lines for each text."""
        return self.writer.results_each if self.kind == "txt" else 1

    def __call__(self, texts: Sequence[str], first: int) -> list[str]:
        found = self.writer.write(texts, first)
        begun = self.written == 0
        self.written += sum(map(len, found))
        self.cut_off += sum(not one.complete for results in found for one in results)
        if self.constrained and begun and self.cut_off == self.written:
            raise UserError(
                "no result could meet the constraint within the limit: raise max_new_tokens, "
                "or ask for something shorter"
            )
        if self.kind == "jsonl":
            return [_as_json(text, results) for text, results in zip(texts, found, strict=True)]
        return [_as_line(one) for results in found for one in results]

    def say_what_was_cut(self) -> None:
        """A warning where the limit kept results from their end."""
        if self.cut_off:
            logger.warning(
                "%d of %d results were cut off by the limit (max_new_tokens) before their end",
                self.cut_off,
                self.written,
            )


def _as_line(result: Hypothesis) -> str:
    text = " ".join(result.text.splitlines())
    return text if result.score is None else f"{result.score:.6g}\t{text}"


def _as_json(source: str, results: Sequence[Hypothesis]) -> str:
    return json.dumps({"source": source, "results": [_fields(one) for one in results]}, ensure_ascii=False)


def _fields(result: Hypothesis) -> dict[str, Any]:
    fields: dict[str, Any] = {"text": result.text}
    if not result.complete:
        fields["complete"] = False
    if result.score is not None:
        # JSON has no infinity: an empty place of a beam has no score.
        fields["score"] = round(result.score, 6) if result.score > float("-inf") else None
        fields["tokens"] = list(result.tokens)
        fields["token_scores"] = [round(score, 6) for score in result.token_scores]
    return fields
