"""Answers in texts of any length: windows over a context, and the best span out of all of them.

As google-research/electra `finetune/qa` and BERT's `run_squad.py` do it: windows overlap, a token's score counts
in the window where it has the most context around it, and "no answer" is the pair of logits on [CLS].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.electra.heads import ElectraForQuestionAnswering
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn.ragged import Layout

#: Tokens that go through the model together.
BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Window:
    """`[CLS] question [SEP] a piece of the context [SEP]`.

    Attributes:
        ids, types: token ids and segments.
        first: where the piece begins in `ids`.
        offsets: for each token of the piece, its [start, end) in characters of the context.
        best: for each token of the piece, whether no other window gives it more context.
    """

    ids: list[int]
    types: list[int]
    first: int
    offsets: list[tuple[int, int]]
    best: list[bool]

    def target(self, start: int, end: int) -> tuple[int, int]:
        """The first and the last token of an answer, for training; (0, 0), [CLS], where it is not all here.

        Args:
            start, end: [start, end) in characters of the context.
        """
        inside = [place for place, (a, b) in enumerate(self.offsets) if a < end and b > start]
        if not inside or self.offsets[inside[0]][0] > start or self.offsets[inside[-1]][1] < end:
            return 0, 0
        return self.first + inside[0], self.first + inside[-1]


@dataclass(frozen=True)
class Answer:
    """A piece of the context, or no answer.

    Attributes:
        text: as it stands in the context; empty: there is no answer.
        start, end: [start, end) in characters of the context.
        score: start's plus end's logit.
        probability: among the proposals for this question.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


def windows(
    tokenizer: ElectraTokenizer,
    question: str,
    context: str,
    *,
    max_length: int = 512,
    stride: int = 128,
    max_question: int = 64,
) -> list[Window]:
    """Cut a context into windows that a model can read.

    Args:
        max_length: of a window in tokens, question and special tokens counted.
        stride: tokens by which a window moves on from the one before.
        max_question: the question is cut after so many tokens.

    Raises:
        UserError: no room beside the question, or a stride that would leave tokens out.
    """
    (asked, _), (tokens, offsets) = tokenizer.encode_with_offsets([question, context])
    head = [tokenizer.cls_token_id, *asked[:max_question], tokenizer.sep_token_id]
    room = max_length - len(head) - 1
    if room < 1:
        raise UserError(f"max_length={max_length} leaves no room beside {len(head) - 2} tokens of a question")
    if stride < 1 or (len(tokens) > room and stride > room):
        raise UserError(
            f"stride={stride} must be from 1 to {room}, the tokens of context that fit in a window"
        )
    starts = [0]
    while starts[-1] + room < len(tokens):
        starts.append(starts[-1] + stride)
    spans = [(start, min(start + room, len(tokens))) for start in starts]
    return [
        Window(
            ids=[*head, *tokens[a:b], tokenizer.sep_token_id],
            types=[0] * len(head) + [1] * (b - a + 1),
            first=len(head),
            offsets=offsets[a:b],
            best=[_best_span(spans, place) == number for place in range(a, b)],
        )
        for number, (a, b) in enumerate(spans)
    ]


def _best_span(spans: Sequence[tuple[int, int]], place: int) -> int:
    """The span in which a token has the most context on its poorer side; the first of equals."""

    def context(number: int) -> float:
        a, b = spans[number]
        return min(place - a, b - 1 - place) + 0.01 * (b - a) if a <= place < b else -math.inf

    return max(range(len(spans)), key=context)


@torch.inference_mode()
def answer(
    model: ElectraForQuestionAnswering,
    tokenizer: ElectraTokenizer,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int | None = None,
    stride: int = 128,
    max_question: int = 64,
    max_answer: int = 30,
    n_best: int = 20,
    null_threshold: float | None = None,
) -> list[list[Answer]]:
    """Answer questions, each about its context, in the order given.

    Args:
        max_length: of a window in tokens; None: 512, or what the model has positions for.
        stride, max_question: see `windows`.
        max_answer: the longest answer in tokens.
        n_best: so many starts and ends of a window are paired, and so many answers returned.
        null_threshold: "no answer" comes first where its score exceeds the best answer's by more than this
            (SQuAD 2; 0 takes the likelier). None: every question has an answer (SQuAD 1), and "no answer" is
            given only where nothing else can be.

    Returns:
        For each question its answers, the best first, at least one.

    Raises:
        UserError: see `windows`; unlike numbers of questions and contexts; a number below 1.
    """
    if len(questions) != len(contexts):
        raise UserError(f"{len(questions)} questions but {len(contexts)} contexts: give one for each")
    for name, value in (("max_answer", max_answer), ("n_best", n_best)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    length = min(512, model.config.max_position_embeddings) if max_length is None else max_length
    cut = [
        windows(tokenizer, question, context, max_length=length, stride=stride, max_question=max_question)
        for question, context in zip(questions, contexts, strict=True)
    ]
    logits = _logits(model, [window for some in cut for window in some])
    return [
        _merge(context, some, [next(logits) for _ in some], max_answer, n_best, null_threshold)
        for context, some in zip(contexts, cut, strict=True)
    ]


def _logits(model: ElectraForQuestionAnswering, cut: Sequence[Window]) -> Iterator[Tensor]:
    """(tokens, 2) of each window, in order."""
    first = 0
    while first < len(cut):
        last, tokens = first, 0
        while last < len(cut) and (last == first or tokens + len(cut[last].ids) <= BATCH_TOKENS):
            tokens += len(cut[last].ids)
            last += 1
        batch = model.pack([w.ids for w in cut[first:last]], None, [w.types for w in cut[first:last]])
        packed = batch.packed
        layout: Layout = packed.layout
        yield from (
            model.span_logits(packed.ids, layout, batch.types).float().cpu().split(list(layout.lengths))
        )
        first = last


def _merge(
    context: str,
    cut: Sequence[Window],
    logits: Sequence[Tensor],
    max_answer: int,
    n_best: int,
    null_threshold: float | None,
) -> list[Answer]:
    null = min(float(window_logits[0].sum()) for window_logits in logits)
    spans: dict[tuple[int, int], float] = {}
    for window, window_logits in zip(cut, logits, strict=True):
        for start, end, score in _spans(window, window_logits, max_answer, n_best):
            spans[start, end] = max(score, spans.get((start, end), -math.inf))
    ranked = sorted(spans.items(), key=lambda item: (-item[1], item[0]))[:n_best]
    proposals = [(context[a:b], a, b, score) for (a, b), score in ranked]
    nothing = ("", 0, 0, null)
    if not proposals or (null_threshold is not None and null - proposals[0][3] > null_threshold):
        proposals.insert(0, nothing)
    elif null_threshold is not None:
        proposals.append(nothing)
    shares = torch.tensor([score for *_, score in proposals]).softmax(0).tolist()
    return [Answer(*proposal, share) for proposal, share in zip(proposals, shares, strict=True)]


def _spans(window: Window, logits: Tensor, max_answer: int, n_best: int) -> Iterator[tuple[int, int, float]]:
    """(start, end, score) in characters of the context, from the likeliest starts and ends of one window."""
    piece = logits[window.first : window.first + len(window.offsets)]
    if not len(piece):
        return
    starts, ends = (side.topk(min(n_best, len(piece))).indices.tolist() for side in piece.unbind(1))
    for start in starts:
        for end in ends:
            if window.best[start] and start <= end < start + max_answer:
                score = float(piece[start, 0] + piece[end, 1])
                yield window.offsets[start][0], window.offsets[end][1], score
