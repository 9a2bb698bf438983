"""Constraints: only what is allowed, and everything that is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import END, padded_batch, trimmed

from unmask.errors import UserError
from unmask.generation.constraints import Choices
from unmask.generation.rules import Constraint, Rule

LIMIT = 6


def reachable(constraint: Constraint, vocabulary: int, limit: int) -> set[tuple[int, ...]]:
    """Every sequence that a search could write: ended, or cut off by the limit."""
    found: set[tuple[int, ...]] = set()

    def visit(written: tuple[int, ...]) -> None:
        if len(written) == limit:
            found.add(written)
            return
        rule = replayed(constraint, written, limit)
        allowed = rule.apply(torch.zeros(1, vocabulary), torch.zeros(1, 1, dtype=torch.int64))[0]
        for token in allowed.isfinite().nonzero().squeeze(1).tolist():
            if token == END:
                found.add(written)
            else:
                visit((*written, token))

    visit(())
    return found


def replayed(constraint: Constraint, written: Sequence[int], limit: int) -> Rule:
    rule = constraint.start(1, limit, END)
    for token in written:
        rule.follow(torch.zeros(1, dtype=torch.int64), torch.tensor([token]))
    return rule


choice = st.lists(st.integers(2, 5), max_size=5).map(tuple)


@given(st.lists(choice, min_size=1, max_size=8), st.integers(1, LIMIT))
@settings(max_examples=60, deadline=None)
def test_exactly_the_choices_that_fit_are_reachable(choices: list[tuple[int, ...]], limit: int) -> None:
    fitting = {one for one in choices if len(one) <= limit}
    if not fitting:
        with pytest.raises(UserError, match="raise max_new_tokens"):
            Choices(choices).start(1, limit, END)
    else:
        assert reachable(Choices(choices), 6, limit) == fitting


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"do_sample": True, "seed": 3}], ids=str)
@pytest.mark.parametrize("limit", [3, 8])
def test_every_search_writes_choices(pair: Any, options: dict[str, Any], limit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    choices = [
        torch.randint(2, 64, (length,), generator=generator).tolist() for length in (1, 2, 3, 3, 4, 6, 7)
    ]
    choices += [[*choices[2], 9], [*choices[2][:2], 40, 41]]
    for seed in range(4):
        ours, _ = pair(seed)
        ids, mask = padded_batch(seed)
        found = ours.generate(ids, mask, constraint=Choices(choices), max_new_tokens=limit, **options)
        for row in trimmed(found):
            assert [token for token in row[1:] if token != END] in choices


def test_beams_rank_choices_by_their_likelihood(pair: Any) -> None:
    """With as many beams as choices nothing is pruned: the order is that of model.score."""
    ours, _ = pair(1)
    choices = [[5, 9, END], [5, 10, 11, END], [20, END], [33, 6, END]]
    ids, mask = padded_batch(4)
    output = ours.generate(
        ids,
        mask,
        constraint=Choices(choices),
        num_beams=4,
        num_return_sequences=4,
        length_penalty=0.0,
        max_new_tokens=5,
        early_stopping="never",
        return_scores=True,
    )
    scores = ours.score(ids, choices * ids.shape[0], mask).view(-1, 4)
    best, order = scores.sort(descending=True)
    torch.testing.assert_close(output.sequence_scores.view(-1, 4), best, atol=1e-3, rtol=1e-3)
    expected = [[0, *choices[place]] for row in order.tolist() for place in row]
    assert trimmed(output.sequences) == expected


def test_results_under_a_constraint_do_not_depend_on_the_batch(pair: Any) -> None:
    ours, _ = pair(2)
    constraint = Choices([[7, 8, 9], [7, 10], [50, 8], [13]])
    ids, mask = padded_batch(12, rows=6)
    for options in ({}, {"num_beams": 3}):
        together = trimmed(ours.generate(ids, mask, constraint=constraint, max_new_tokens=5, **options))
        order = torch.tensor([3, 1, 5, 0, 4, 2])
        shuffled = ours.generate(ids[order], mask[order], constraint=constraint, max_new_tokens=5, **options)
        assert trimmed(shuffled) == [together[row] for row in order.tolist()]


def test_contradictions_are_errors(pair: Any) -> None:
    ours, _ = pair(2)
    ids, mask = padded_batch(12)
    with pytest.raises(UserError, match="contradicts min_new_tokens"):
        ours.generate(ids, mask, constraint=Choices([[7]]), max_new_tokens=5, min_new_tokens=3)
    with pytest.raises(UserError, match="contradicts min_new_tokens"):
        ours.generate(ids, mask, constraint=Choices([[7]]), max_new_tokens=5, min_new_tokens=3, num_beams=2)
    with pytest.raises(UserError, match="leave one out"):
        ours.generate(ids, mask, constraint=Choices([[7]]), speculate=True)
    with pytest.raises(UserError, match="at least one choice"):
        Choices([])
    with pytest.raises(UserError, match="in its middle"):
        Choices([[4, END, 5]])


# A small vocabulary with everything that is hard in T5's: pieces with and without their space, a lone space,
# pieces that begin others, one string written by two ids (the last counts), a character cut in two.
PIECES: list[bytes | None] = [
    None,
    None,
    None,
    b" ",
    b"a",
    b"b",
    b" a",
    b"ab",
    b" ab",
    b"ba",
    b"a",
    b"\xc3",
    b"\xa9",
    None,
    b"\n",
]


def decoded(ids: Sequence[int]) -> str | None:
    """The text, without the spaces that T5's decoding drops at the beginning; None for what is no text."""
    data = b"".join(PIECES[token] or b"" for token in ids)
    try:
        return None if data.startswith(b"  ") else data.decode().lstrip(" ")
    except UnicodeDecodeError:
        return None


@pytest.fixture(scope="module")
def grammar() -> Callable[[str], Constraint]:
    pytest.importorskip("llguidance")
    from unmask.generation.grammar import Grammar, Vocabulary

    vocabulary = Vocabulary(PIECES, END, drops_first_space=True)
    return lambda pattern: Grammar.regex(vocabulary, pattern)


PATTERNS = [
    "a",
    "(ab|ba)b?",
    "a*",
    " a|b",
    "( a)?b",
    "a b",
    "[ab]{1,3}",
    "é|a\n",
    ".a",
    " *",
    "a|é b",
    "",
    "a/b|ab",
    "(a|b| ){2}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_grammar_allows_what_brute_force_does(grammar: Callable[[str], Constraint], pattern: str) -> None:
    """Every sequence of at most three pieces, against Python's re on its decoded text."""
    limit = 4
    writable = [token for token, piece in enumerate(PIECES) if piece and piece not in PIECES[token + 1 :]]
    expected = {
        ids
        for length in range(limit)
        for ids in product(writable, repeat=length)
        if (text := decoded(ids)) is not None and re.fullmatch(pattern, text)
    }
    found = {ids for ids in reachable(grammar(pattern), len(PIECES) + 3, limit) if len(ids) < limit}
    assert found == expected


def test_grammars_constrain_every_search(pair: Any, grammar: Callable[[str], Constraint]) -> None:
    from unmask.generation.grammar import Grammar, Vocabulary

    pieces: list[bytes | None] = [None] * 3 + [b" "] + [bytes([97 + i % 26]) for i in range(30)]
    pieces += [b" " + bytes([97 + i % 26]) for i in range(30)]
    constraint = Grammar.regex(Vocabulary(pieces, END, drops_first_space=True), "[a-m]{2,4}( [n-z]{2,3}){2}")
    for options in ({}, {"num_beams": 4}, {"do_sample": True, "seed": 2}):
        for seed in range(3):
            ours, _ = pair(seed)
            ids, mask = padded_batch(seed)
            found = ours.generate(ids, mask, constraint=constraint, max_new_tokens=15, **options)
            for row in trimmed(found):
                text = b"".join(pieces[token] or b"" for token in row[1:]).decode().removeprefix(" ")
                assert re.fullmatch("[a-m]{2,4}( [n-z]{2,3}){2}", text)


JSON_PIECES: list[bytes | None] = [None] * 3 + [bytes([byte]) for byte in range(32, 127)]


def test_json_follows_its_schema() -> None:
    pytest.importorskip("llguidance")
    from unmask.generation.grammar import Grammar, Vocabulary

    vocabulary = Vocabulary(JSON_PIECES, END, drops_first_space=True)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    constraint = Grammar.json_schema(vocabulary, schema | {"additionalProperties": False})

    def accepts(text: str) -> bool:
        rule = constraint.start(1, 99, END)
        for token in [*vocabulary.encode(text), END]:
            logits = rule.apply(torch.zeros(1, len(JSON_PIECES)), torch.zeros(1, 1, dtype=torch.int64))
            if logits[0, token] != 0:
                return False
            rule.follow(torch.zeros(1, dtype=torch.int64), torch.tensor([token]))
        return True

    assert accepts('{"ok": true}') and accepts(' {"ok":false}') and accepts('{"ok":true }')
    assert not accepts('{"ok": 1}') and not accepts("{}") and not accepts('{"ok":  true}')


def test_grammars_that_cannot_be_met_are_errors(grammar: Callable[[str], Constraint]) -> None:
    from unmask.generation.grammar import Grammar, Vocabulary

    with pytest.raises(UserError, match=r"regular expression '\(a' cannot be used.*unclosed group"):
        grammar("(a")
    with pytest.raises(UserError, match="no piece of the vocabulary writes"):
        grammar("x+")
    vocabulary = Vocabulary(PIECES, END, drops_first_space=False)
    with pytest.raises(UserError, match="no piece of the vocabulary writes"):
        Grammar.json_schema(vocabulary, {"type": "object"})
    with pytest.raises(UserError, match="is not a JSON object"):
        Grammar.json_schema(vocabulary, "{")
