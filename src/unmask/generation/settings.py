"""Every option of decoding, named once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from operator import index
from typing import Any, Literal, Self

from unmask.errors import UserError
from unmask.generation.limits import new_token_limit

#: Options that only sampling reads, and options that only beam search reads.
SAMPLING_OPTIONS = ("temperature", "top_k", "top_p", "min_p")
BEAM_OPTIONS = ("length_penalty", "early_stopping")


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How to decode; the defaults are greedy decoding. Names and meanings are Transformers'.

    Attributes:
        max_new_tokens: the most tokens to write behind the start token and the prefix, the end token
            included.
        max_length: the same limit with the start token and the prefix counted; give one of the two.
        min_new_tokens: the end token is forbidden until this many tokens are written.
        num_beams: hypotheses searched side by side; 1 is no beam search.
        length_penalty: a hypothesis' score is its log-probability divided by its length to this power.
        early_stopping: when to stop once `num_beams` hypotheses have ended. True: at once. False: when the
            best open beam scores below the worst of them at its present length. "never": when no open beam
            could still overtake, at whatever length.
        num_return_sequences: results for each input, side by side; at most `num_beams` where beams are
            searched, any number of samples where sampled.
        do_sample: draw tokens instead of taking the likeliest.
        temperature: divides the logits; above 0.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all.
        min_p: keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        seed: what draws depend on. The token that an input is given is a function of (its seed, the number of
            the sample, the step), never of what else is in the batch. One number serves every input of the
            batch (equal inputs are then given equal results), a sequence gives each input its own, None draws
            a seed for each input from torch's global generator.
        repetition_penalty: divides positive logits of tokens already written by this, multiplies negative
            ones; 1 is off (arXiv 1909.05858).
        no_repeat_ngram_size: no n-gram of this size is written twice; 0 is off.
        speculate: guess several tokens at once by copying from the input and verify them in one pass; the
            result is that of greedy decoding.
        draft_tokens: the most tokens guessed at once.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | Sequence[int] | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    speculate: bool = False
    draft_tokens: int = 10

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_combinations()

    def _check_numbers(self) -> None:
        whole_at_least = {
            "min_new_tokens": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "top_k": 0,
            "no_repeat_ngram_size": 0,
            "draft_tokens": 1,
        }
        for name, least in whole_at_least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name}={value!r} must be a whole number, at least {least}")
        for name in ("max_new_tokens", "max_length"):
            value = getattr(self, name)
            # What is too small is said where it is known what is there already.
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise UserError(f"{name}={value!r} must be a whole number")
        for name in ("temperature", "repetition_penalty"):
            if not 0 < _number(name, getattr(self, name)) < float("inf"):
                hint = " (do_sample=False takes the likeliest token)" if name == "temperature" else ""
                raise UserError(f"{name}={getattr(self, name)} must be above 0{hint}")
        if not 0 < _number("top_p", self.top_p) <= 1:
            raise UserError(f"top_p={self.top_p} must be above 0 and at most 1")
        if not 0 <= _number("min_p", self.min_p) <= 1:
            raise UserError(f"min_p={self.min_p} must lie between 0 and 1")
        _number("length_penalty", self.length_penalty)
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise UserError(f"early_stopping={self.early_stopping!r} must be True, False or 'never'")
        _check_seed(self.seed)
        for name in ("do_sample", "speculate"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}={getattr(self, name)!r} must be True or False")

    def _check_combinations(self) -> None:
        beams, results = self.num_beams, self.num_return_sequences
        if beams > 1 and self.do_sample:
            raise UserError(f"num_beams={beams} and do_sample=True exclude each other: choose one")
        if beams > 1 and results > beams:
            raise UserError(
                f"num_return_sequences={results} needs num_beams to be at least as many, not {beams}"
            )
        if beams == 1 and results > 1 and not self.do_sample:
            raise UserError(
                f"num_return_sequences={results} needs do_sample=True or num_beams={results}: "
                "greedy decoding has one result"
            )
        if not self.do_sample:
            self._idle(SAMPLING_OPTIONS, "do_sample=True")
        if beams == 1:
            self._idle(BEAM_OPTIONS, "num_beams above 1")
        if self.speculate:
            self._check_speculation()
        else:
            self._idle(("draft_tokens",), "speculate=True")

    def _check_speculation(self) -> None:
        if self.num_beams > 1 or self.do_sample:
            other = "do_sample=True" if self.do_sample else f"num_beams={self.num_beams}"
            raise UserError(f"speculate=True speeds up greedy decoding: leave it or {other} out")

    def _idle(self, names: tuple[str, ...], needs: str) -> None:
        for name in names:
            if getattr(self, name) != DEFAULTS[name]:
                raise UserError(f"{name}={getattr(self, name)} does nothing without {needs}")

    @classmethod
    def resolve(cls, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Self:
        """The settings of a call.

        Args:
            options: what the caller named.
            defaults: generation_config.json's values, for what the caller did not name. Those that do not fit
                the kind of search that the caller asked for are left aside, and so is what is not one of
                these options.

        Raises:
            UserError: an unknown option, or nonsense, with the file named where that is its source.
        """
        for name in options:
            if name not in DEFAULTS:
                close = difflib.get_close_matches(name, DEFAULTS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(DEFAULTS)}"
                raise UserError(f"unknown option of generate: {name}; {hint}")
        filled = _fitting(defaults, options)
        try:
            return cls(**filled | dict(options))
        except UserError as error:
            taken = ", ".join(f"{name}={value}" for name, value in filled.items())
            source = f" (generation_config.json says {taken})" if taken else ""
            raise UserError(f"{error}{source}") from None

    def token_limit(self, prompt_length: int, fallback: int) -> int:
        """How many tokens may be written behind a prompt of so many; `fallback` where nothing was said.

        Raises:
            UserError: both limits, one that leaves nothing to write, or one below min_new_tokens.
        """
        limit = new_token_limit(
            self.max_new_tokens, self.max_length, prompt_length=prompt_length, defaults={}, fallback=fallback
        )
        if self.min_new_tokens > limit:
            raise UserError(
                f"min_new_tokens={self.min_new_tokens} is more than the {limit} that may be written"
            )
        return limit


#: Each option's default.
DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in fields(GenerationSettings) if field.default is not MISSING
}


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
        raise UserError(f"{name}={value!r} must be a number")
    return value


def _check_seed(seed: Any) -> None:
    try:
        for one in seed if isinstance(seed, Iterable) else () if seed is None else (seed,):
            index(one)
    except TypeError:
        raise UserError(f"seed={seed!r} must be a whole number, or one for each input") from None


def _fitting(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What of generation_config.json applies beside these options."""
    filled = {
        name: defaults[name]
        for name in DEFAULTS
        if name in defaults and defaults[name] is not None and name not in options
    }
    if not {"max_new_tokens", "max_length"}.isdisjoint(options) or "max_new_tokens" in filled:
        filled.pop("max_length", None)
    if "max_new_tokens" in filled and "max_length" in options:
        del filled["max_new_tokens"]
    # Transformers' min_length counts the start token.
    least = defaults.get("min_length") or 0
    if not isinstance(least, int):
        raise UserError(f"generation_config.json: min_length={least!r} must be a whole number")
    if least > 1 and not {"min_new_tokens"} & (filled.keys() | options.keys()):
        filled["min_new_tokens"] = least - 1
    if options.get("speculate"):
        _drop(filled, ("do_sample", "num_beams"))
    if options.get("num_beams", 1) > 1:
        filled.pop("do_sample", None)
    merged = filled | dict(options)
    if merged.get("do_sample"):
        filled.pop("num_beams", None)
    else:
        _drop(filled, SAMPLING_OPTIONS)
    if merged.get("num_beams", 1) == 1 or merged.get("do_sample"):
        _drop(filled, BEAM_OPTIONS)
    return filled


def _drop(values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        values.pop(name, None)
