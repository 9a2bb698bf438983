"""What a model that writes is told beside the options of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WritingSettings:
    """What T5 reads, and what it may write.

    Attributes:
        prefix: what is put before each text, such as "summarize: ".
        max_source_length: tokens of a text that are read, the end token included; default: all.
        decoder_prefix: what every result begins with.
        choices: a file of the texts that may be written, one a line.
        regex: a pattern that the whole result, behind decoder_prefix, matches (Rust's syntax: no look-around, no
            back-references).
        json_schema: a file with the JSON schema of the results, behind decoder_prefix.
        scores: give the log-probability of each result, and in JSON lines of each of its tokens.
        batch_tokens: tokens read and to be written that are worked on together; memory grows with them;
            default: 8192.
    """

    prefix: str = ""
    max_source_length: int | None = None
    decoder_prefix: str = ""
    choices: Path | None = None
    regex: str | None = None
    json_schema: Path | None = None
    scores: bool = False
    batch_tokens: int | None = None

    @property
    def is_constrained(self) -> bool:
        return (self.choices, self.regex, self.json_schema) != (None, None, None)
