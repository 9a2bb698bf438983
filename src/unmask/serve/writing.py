"""From a request to jobs that write, and from their tokens to text."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from unmask.errors import UserError
from unmask.generation.settings import GenerationSettings
from unmask.generation.writing import NEW_TOKENS, REPLACEMENT, with_limit
from unmask.serve.bodies import Chat, Writing
from unmask.serve.jobs import Job, LongCall, Write
from unmask.serve.limits import Limits
from unmask.serve.models import ServedModel
from unmask.t5.continuous import plan_of

#: What of a body is an option of decoding, and what that is called.
_OPTIONS = {
    "max_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "num_beams": "num_beams",
}
#: Below this, dividing logits by the temperature would overflow before it changed anything.
_COLDEST = 0.01


@dataclass
class Result:
    """One result as far as it is written.

    Attributes:
        index: among the choices of the answer.
        job: that writes it.
        prefix: ids that it begins with.
        read, written: tokens.
        finish: "stop" or "length", at the end.
    """

    index: int
    job: Job
    prefix: list[int]
    read: int
    written: int = 0
    finish: str = "length"


def options_of(body: Writing) -> dict[str, Any]:
    """The options of `GenerationSettings` that a body names."""
    options = {
        option: getattr(body, name) for name, option in _OPTIONS.items() if getattr(body, name) is not None
    }
    if isinstance(body, Chat) and body.max_completion_tokens is not None:
        options["max_new_tokens"] = body.max_completion_tokens
    drawn = body.temperature
    if drawn is None and (body.top_p not in (None, 1) or body.top_k):
        drawn = 1.0
    if drawn is not None:
        options["do_sample"] = drawn >= _COLDEST
        if drawn >= _COLDEST:
            options["temperature"] = drawn
        else:
            options = {name: value for name, value in options.items() if name not in ("top_p", "top_k")}
    return options


def results_of(
    model: ServedModel, prompts: list[str], sources: list[list[int]], body: Writing, limits: Limits
) -> list[Result]:
    """A job for each result that a body asks for.

    Args:
        sources: ids of each prompt.

    Raises:
        UserError: options that exclude each other, a text that is too long, too many tokens.
    """
    assert model.t5 is not None
    tokenizer, defaults = model.tokenizer, model.t5.generation_defaults | {"speculate": False}
    options = with_limit(options_of(body), defaults)
    prefix = tokenizer.encode(body.decoder_prefix, add_special_tokens=False) if body.decoder_prefix else []
    settings = GenerationSettings.resolve(options, defaults)
    limit = settings.token_limit(1 + len(prefix), NEW_TOKENS)
    check_limit(limit + len(prefix), limits)
    if body.n > 1 and not settings.do_sample:
        raise UserError(f"n={body.n} needs a temperature above 0: without one there is one result")
    searched = settings.num_beams > 1
    if searched and body.stream:
        raise UserError(
            "results of a beam search are known at the end: leave stream out, or give num_beams=1"
        )
    seed = body.seed if body.seed is not None else secrets.randbits(48)
    results: list[Result] = []
    for prompt, source in zip(prompts, sources, strict=True):
        check_length(len(source), model, limits)
        for _ in range(body.n):
            number = len(results)
            tokens = len(source) + 1 + len(prefix) + limit
            job: Job
            if searched:
                item = (prompt, body.decoder_prefix, options)
                job = LongCall(tokens * settings.num_beams, function=model.long["search"], item=item)
            else:
                own = options | ({"seed": seed + number} if settings.do_sample else {})
                plan = plan_of(model.t5, prefix, GenerationSettings.resolve(own, defaults), limit)
                eager = body.stream or bool(body.stops)
                job = Write(tokens, source=source, plan=plan, eager=eager)
            results.append(Result(number, job, prefix, len(source)))
    return results


def write_of(model: ServedModel, source: list[int], limit: int) -> Write:
    """A job that writes for ids as generation_config.json says, without beams."""
    assert model.t5 is not None
    defaults = model.t5.generation_defaults | {"speculate": False}
    settings = GenerationSettings.resolve({"max_new_tokens": limit, "num_beams": 1}, defaults)
    return Write(len(source) + 1 + limit, source=source, plan=plan_of(model.t5, [], settings, limit))


def check_limit(tokens: int, limits: Limits) -> None:
    """Raises:
    UserError: more tokens are asked for than are written.
    """
    if tokens > limits.new_tokens:
        raise UserError(f"{tokens} tokens are asked for, at most {limits.new_tokens} are written")


def check_length(tokens: int, model: ServedModel, limits: Limits) -> None:
    """Raises:
    UserError: a text is too long for the service, or for the model.
    """
    most = limits.source_tokens if model.longest is None else min(limits.source_tokens, model.longest)
    if tokens > most:
        raise UserError(f"a text has {tokens} tokens, at most {most} are read")


async def pieces(model: ServedModel, result: Result, stops: list[str], streamed: bool) -> AsyncIterator[str]:
    """The text of a result: piece by piece, or in one; cut before the first stop."""
    if isinstance(result.job, LongCall):
        text, complete = await result.job.result()
        result.written = len(model.tokenizer.encode(text))
        cut = _cut(text, stops)
        result.finish = "stop" if complete or cut is not None else "length"
        yield text if cut is None else text[:cut]
        return
    assert isinstance(result.job, Write) and model.t5 is not None
    end = model.t5.config.eos_token_id
    ids, shown, text = list(result.prefix), 0, ""
    # A stop may have begun in what is not shown yet.
    held = max((len(stop) - 1 for stop in stops), default=0)
    async for fresh in result.job.written():
        result.written += len(fresh)
        if fresh[-1] == end:
            result.finish = "stop"
            fresh = fresh[:-1]
        ids += fresh
        if not (streamed or stops):
            continue
        text = model.tokenizer.decode(ids, skip_special_tokens=True)
        cut = _cut(text, stops)
        if cut is not None:
            model.worker.cancel([result.job])
            result.finish = "stop"
            yield text[shown:cut]
            return
        ready = len(text.rstrip(REPLACEMENT)) - held
        if streamed and ready > shown:
            yield text[shown:ready]
            shown = ready
    yield model.tokenizer.decode(ids, skip_special_tokens=True)[shown:]


def _cut(text: str, stops: list[str]) -> int | None:
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return min(places, default=None)
