"""Vocabularies as tables for the terminal and as pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from unmask.report import Block, Cell, Column, Curves, Heading, KeyFacts, Page, Paragraph, Series, Table
from unmask.text.measurement import Measurement
from unmask.text.tokenizer import Tokenizer
from unmask.vocabulary.surgery import Surgery
from unmask.vocabulary.training import TrainedTokenizer

# Longest pieces, unknown words, examples that a page shows.
_LONGEST = 40
_UNKNOWN = 40
_EXAMPLES = 8
_NEW = 1000
# Characters of an example.
_EXAMPLE = 160


def measurement_table(named: Sequence[tuple[str, Measurement]]) -> Table:
    """Measurements of the same text side by side, a column each."""
    first = named[0][1]
    caption = f"On {first.texts:,} passages: {first.characters:,} characters, {first.words:,} words (by white space)"
    lines: list[tuple[str, Callable[[Measurement], str]]] = [
        ("ids", lambda found: f"{found.vocab_size:,}"),
        ("of them in the text", lambda found: f"{found.used:,}"),
        ("tokens", lambda found: f"{found.tokens:,}"),
        ("tokens a word (fertility)", lambda found: f"{found.fertility:.3f}"),
        ("characters a token", lambda found: f"{found.characters_per_token:.2f}"),
        ("unknown tokens", lambda found: f"{100 * found.unknown_rate:.4f} %"),
        ("passages that do not decode to themselves", lambda found: _share(found.changed, found.texts)),
        ("… white space and folding aside", lambda found: _share(found.lost, found.texts)),
    ]
    return Table(
        caption,
        ["", *(Column(name, numeric=True) for name, _ in named)],
        [[label, *(text(found) for _, found in named)] for label, text in lines],
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.2f} %"


MEANINGS = Paragraph(
    "Where white space does not part words, look at characters a token. Passages have up to 4,000 characters; one "
    "that decodes to itself does so character by character. Folding is what the tokenizer does to case, accents and "
    "Unicode forms: a passage that differs beyond that has lost something."
)


def trained_page(trained: TrainedTokenizer) -> Page:
    """The report of a tokenizer that was trained."""
    tokenizer, found = trained.tokenizer, trained.measured
    blocks: list[Block] = [
        KeyFacts(_facts(trained)),
        measurement_table([(trained.settings.kind, found)]),
        MEANINGS,
        coverage([(trained.settings.kind, found)]),
        *failures(found),
        Heading("Examples"),
        examples([(trained.settings.kind, tokenizer)], trained.passages),
        Heading("Longest tokens"),
        longest_table(tokenizer, found),
    ]
    return Page("Tokenizer report", blocks)


def _facts(trained: TrainedTokenizer) -> list[tuple[str, str]]:
    settings = trained.settings
    facts = [("kind", settings.kind), ("ids", f"{trained.tokenizer.vocab_size:,}")]
    for name in ("lowercase", "strip_accents", "split_cjk", "segmenter"):
        value = getattr(settings, name)
        if value is not None:
            facts.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return [*facts, ("fingerprint", trained.tokenizer.fingerprint[:16])]


def coverage(named: Sequence[tuple[str, Measurement]]) -> Curves:
    """How much of the text the most frequent tokens are."""
    series = []
    for name, found in named:
        counts = np.sort(found.frequencies[found.frequencies > 0])[::-1]
        shares = [100 * share for share in accumulate((counts / max(1, counts.sum())).tolist())]
        # Points on a logarithmic axis: more would lie on one another.
        ranks = np.unique(np.geomspace(1, len(shares), 100).round().astype(int))
        series.append(Series(name, ranks.tolist(), [shares[rank - 1] for rank in ranks]))
    caption = "Share of the text that the most frequent tokens are"
    return Curves(caption, series, "most frequent tokens", "% of the text's tokens", log_x=True)


def failures(found: Measurement) -> list[Block]:
    """Unknown words and what did not come back, as far as there are any."""
    blocks: list[Block] = []
    if found.unknown_words:
        count = len(found.unknown_words)
        rows: list[list[Cell]] = [[word, times] for word, times in found.unknown_words[:_UNKNOWN]]
        blocks += [
            Heading("Unknown words"),
            Table(
                f"The most frequent of {count:,} words with an unknown token",
                ["word", Column("times", numeric=True)],
                rows,
            ),
        ]
    if found.losses:
        blocks += [
            Heading("What does not come back"),
            Table(
                f"The first of {found.lost:,} passages: where they begin to differ, without white space",
                ["text", "decoded"],
                [[loss.before, loss.after] for loss in found.losses],
            ),
        ]
    return blocks


def examples(tokenizers: Sequence[tuple[str, Tokenizer]], passages: Sequence[str]) -> Table:
    """The beginnings of some passages, token by token."""
    rows: list[list[Cell]] = []
    for passage in passages[:_EXAMPLES]:
        text = passage.strip()[:_EXAMPLE]
        rows.append([text, *(" · ".join(tokenizer.tokenize(text)) for _, tokenizer in tokenizers)])
    return Table(
        "The first characters of some passages; a dot parts tokens",
        ["text", *(n for n, _ in tokenizers)],
        rows,
    )


def longest_table(tokenizer: Tokenizer, found: Measurement) -> Table:
    """The longest pieces: what a corpus repeats too often shows here."""
    tokens = [
        (tokenizer.convert_ids_to_tokens(token_id) or "", int(found.frequencies[token_id]))
        for token_id in range(tokenizer.vocab_size)
        if token_id not in tokenizer.special_ids
    ]
    tokens.sort(key=lambda item: (-len(item[0]), item[0]))
    return Table(
        f"The {_LONGEST} longest, and how often they stand in the passages",
        ["token", Column("characters", numeric=True), Column("times", numeric=True)],
        [[token, len(token), times] for token, times in tokens[:_LONGEST]],
    )


def surgery_tables(done: Surgery, shown: int) -> list[Table]:
    """Sizes, the text before and after, and the first of the new tokens."""
    before, after = done.sizes
    rows: list[list[Cell]] = [
        ["ids", before.ids, after.ids],
        ["parameters", before.parameters, after.parameters],
        ["… in tables of tokens", before.token_parameters, after.token_parameters],
        ["bytes of weights", before.bytes, after.bytes],
    ]
    sizes = [Column("before", numeric=True), Column("after", numeric=True)]
    tables = [
        Table(f"{done.model}: {done.removed:,} tokens removed, {len(done.new):,} new", ["", *sizes], rows)
    ]
    if done.measured is not None:
        tables.append(measurement_table(list(zip(("before", "after"), done.measured, strict=True))))
    if done.new:
        tables.append(
            Table(
                "New tokens, and those that they begin as the mean of",
                ["token", "made from"],
                [[token, " · ".join(pieces) or "all"] for token, pieces in done.new[:shown]],
            )
        )
    return tables


def surgery_page(done: Surgery) -> Page:
    """The report of a vocabulary that was trimmed or extended."""
    blocks: list[Block] = [*surgery_tables(done, _NEW)]
    if done.measured is not None:
        named = list(zip(("before", "after"), done.tokenizers, strict=True))
        blocks += [MEANINGS, *failures(done.measured[1]), Heading("Examples"), examples(named, done.passages)]
    return Page("Vocabulary report", blocks)
