"""CTranslate2 as an engine: the same texts in and hypotheses out as `T5Writer`, or a refusal that names why.

What it takes gives unmask's ids in float32, but for ties. Beam search is CTranslate2's own, which stops as
early_stopping=True does. It works on padded batches, so that last bits of a score can depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unmask import hub
from unmask.errors import UserError
from unmask.export.ct2 import FILES, read_vocabulary, require
from unmask.generation.batching import batches_by_length
from unmask.generation.output import Hypothesis
from unmask.generation.settings import DEFAULTS, GenerationSettings
from unmask.generation.writing import BATCH_TOKENS, NEW_TOKENS, text_pieces, with_limit
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.writing import encode_with_end

#: Our names of the types that it computes in → its own.
COMPUTE_TYPES = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "int8": "int8_float32",
}
#: What CTranslate2 does otherwise while it searches beams: before probabilities are made, not after.
_NOT_WITH_BEAMS = ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens")


class CTranslate2Writer:
    """An exported T5 run by CTranslate2."""

    #: Draws come from one generator for the whole process, which cannot be set back for a text.
    first_seed: int | None = None

    def __init__(
        self,
        directory: Path,
        *,
        device: str | torch.device = "cpu",
        dtype: str | None = None,
        prefix: str = "",
        max_source_length: int | None = None,
        decoder_prefix: str = "",
        scores: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        **options: Any,
    ) -> None:
        """Args:
        directory: what `unmask export ct2` wrote.
        dtype: what to compute in: "float32", "bfloat16", "float16" or "int8"; None: the type that the weights are
            stored in, or the nearest that CTranslate2 has for the processor.
        device: cpu or cuda.
        prefix, max_source_length, decoder_prefix, scores, batch_tokens, options: as for `T5Writer`.

        Raises:
            UserError: no export, an option that CTranslate2 does not have or does otherwise than unmask, a type
                that it does not compute in here.
            MissingExtraError: CTranslate2 is not installed.
        """
        defaults = _read_defaults(directory)
        self.options = with_limit(options, defaults)
        self.settings = GenerationSettings.resolve(self.options, defaults)
        self.tokenizer = load_tokenizer(directory)
        self.decoder_prefix = self.tokenizer.encode(decoder_prefix, add_special_tokens=False)
        _check(self.settings, self.decoder_prefix)
        self.limit = self.settings.token_limit(1 + len(self.decoder_prefix), NEW_TOKENS)
        self.prefix, self.max_source_length = prefix, max_source_length
        self.scores, self.batch_tokens = scores, batch_tokens
        self.tokens = read_vocabulary(directory)
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        self.end = self.tokens[self.tokenizer.eos_token_id]
        self.translator = _translator(directory, torch.device(device).type, dtype)

    @property
    def results_each(self) -> int:
        """Results for each text."""
        return self.settings.num_return_sequences

    def write(self, texts: Sequence[str], first: int = 0) -> list[list[Hypothesis]]:
        """The results for each text, best first where beams were searched; `first` is of no consequence."""
        del first
        encoded = self._encode(texts)
        copies = max(self.settings.num_beams, self.settings.num_return_sequences)
        extra = 1 + len(self.decoder_prefix) + self.limit
        results: list[list[Hypothesis]] = [[] for _ in texts]
        lengths = [len(row) for row in encoded]
        for places in batches_by_length(lengths, self.batch_tokens, extra=extra, copies=copies):
            found = self._translate([encoded[place] for place in places])
            for place, hypotheses in zip(places, found, strict=True):
                results[place] = hypotheses
        return results

    def stream(self, text: str, number: int = 0) -> Iterator[str]:
        """The one result for a text, piece by piece.

        Raises:
            UserError: at once, for beams and for several results.
        """
        del number
        settings = self.settings
        if settings.num_beams > 1 or settings.num_return_sequences > 1:
            raise UserError(
                f"num_beams={settings.num_beams}, num_return_sequences={settings.num_return_sequences}: one "
                "result can be streamed, and beams are not known until the end"
            )
        steps = self.translator.generate_tokens(
            self._encode([text])[0],
            self._start(),
            max_decoding_length=self.limit + len(self.decoder_prefix),
            max_input_length=0,
            **self._search_options(),
        )
        # The forced prefix is among the steps.
        written = (step.token_id for place, step in enumerate(steps) if place >= len(self.decoder_prefix))
        return text_pieces(self.tokenizer, self.decoder_prefix, written)

    def _encode(self, texts: Sequence[str]) -> list[list[str]]:
        rows = encode_with_end(self.tokenizer, [self.prefix + text for text in texts], self.max_source_length)
        return [[self.tokens[token] for token in row] for row in rows]

    def _start(self) -> list[str] | None:
        return [self.tokens[token] for token in self.decoder_prefix] or None

    def _search_options(self) -> dict[str, Any]:
        """CTranslate2's options of a search without beams."""
        settings = self.settings
        options = {
            "min_decoding_length": settings.min_new_tokens + len(self.decoder_prefix),
            "repetition_penalty": settings.repetition_penalty,
            "no_repeat_ngram_size": settings.no_repeat_ngram_size,
        }
        if settings.do_sample:
            options["sampling_topk"] = settings.top_k
            options["sampling_topp"] = settings.top_p
            options["sampling_temperature"] = settings.temperature
        return options

    def _translate(self, rows: list[list[str]]) -> list[list[Hypothesis]]:
        """The results for each row. Several samples of a text are drawn as of several texts."""
        samples = self.settings.num_return_sequences if self.settings.do_sample else 1
        found = self._search([row for row in rows for _ in range(samples)])
        return [
            [one for results in found[first : first + samples] for one in results]
            for first in range(0, len(found), samples)
        ]

    def _search(self, rows: list[list[str]]) -> list[list[Hypothesis]]:
        settings, start = self.settings, self._start()
        results = self.translator.translate_batch(
            rows,
            None if start is None else [start] * len(rows),
            beam_size=settings.num_beams,
            num_hypotheses=1 if settings.do_sample else settings.num_return_sequences,
            # Without beams a score is a plain sum.
            length_penalty=settings.length_penalty if settings.num_beams > 1 else 0,
            max_input_length=0,
            max_decoding_length=self.limit + len(self.decoder_prefix),
            return_end_token=True,
            return_scores=self.scores,
            **self._search_options(),
        )
        each = [list(result.hypotheses) for result in results]
        if not self.scores:
            return [[self._hypothesis(tokens) for tokens in found] for found in each]
        flat = [(row, tokens) for row, found in zip(rows, each, strict=True) for tokens in found]
        token_scores = iter(self._token_scores(flat))
        return [
            [
                self._scored(tokens, score, next(token_scores))
                for tokens, score in zip(found, result.scores, strict=True)
            ]
            for found, result in zip(each, results, strict=True)
        ]

    def _token_scores(self, flat: Sequence[tuple[list[str], list[str]]]) -> list[list[float]]:
        """The model's log-probability of each token written behind the prefix."""
        # Targets are given without the end token, which is always scored.
        bare = [tokens[:-1] if tokens[-1:] == [self.end] else tokens for _, tokens in flat]
        scored = self.translator.score_batch([row for row, _ in flat], bare, max_input_length=0)
        first = len(self.decoder_prefix)
        return [
            list(one.log_probs[first : len(tokens)]) for one, (_, tokens) in zip(scored, flat, strict=True)
        ]

    def _hypothesis(self, tokens: list[str]) -> Hypothesis:
        ids = [self.ids[token] for token in tokens]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Hypothesis(text, complete=tokens[-1:] == [self.end])

    def _scored(self, tokens: list[str], score: float, token_scores: list[float]) -> Hypothesis:
        plain = self._hypothesis(tokens)
        if self.settings.num_beams == 1:
            # Of a sample CTranslate2's own score is after temperature and filters, ours before.
            score = sum(token_scores)
        written = [self.ids[token] for token in tokens[len(self.decoder_prefix) :]]
        pieces = tuple(piece or "" for piece in self.tokenizer.convert_ids_to_tokens(written))
        return Hypothesis(plain.text, plain.complete, score, pieces, tuple(token_scores))


def _read_defaults(directory: Path) -> dict[str, Any]:
    for name in FILES:
        if not (directory / name).is_file():
            raise UserError(
                f"{directory} is no export for CTranslate2 (it has no {name}): make one with "
                "`unmask export ct2 MODEL --out DIR`"
            )
    return hub.read_json(directory / hub.GENERATION_CONFIG)


def _translator(directory: Path, device: str, dtype: str | None) -> Any:
    require()
    import ctranslate2

    if device not in ("cpu", "cuda"):
        raise UserError(f"CTranslate2 computes on cpu and cuda, not on {device}")
    try:
        return ctranslate2.Translator(
            str(directory),
            device=device,
            compute_type="default" if dtype is None else COMPUTE_TYPES[dtype],
            intra_threads=torch.get_num_threads(),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"CTranslate2 cannot load {directory}: {error}") from None


def _check(settings: GenerationSettings, decoder_prefix: Sequence[int]) -> None:
    """Raises:
    UserError: what CTranslate2 does not do, or does otherwise.
    """
    refusals: Mapping[str, str] = {
        "speculate": "it copies nothing from the source",
        "min_p": "it has no such filter",
        "seed": "its draws cannot be repeated",
    }
    for name, reason in refusals.items():
        if getattr(settings, name) != DEFAULTS[name]:
            raise UserError(f"{name} does not work with CTranslate2, {reason}: leave it out, or the engine")
    if settings.num_beams == 1:
        return
    if settings.early_stopping is not True:
        raise UserError(
            f"num_beams={settings.num_beams} with early_stopping={settings.early_stopping}: CTranslate2's beams "
            "stop as early_stopping=True does, so ask for that, or leave the engine out"
        )
    for name in _NOT_WITH_BEAMS:
        if getattr(settings, name) != DEFAULTS[name]:
            raise UserError(
                f"{name} with num_beams={settings.num_beams} would be another search in CTranslate2: leave one "
                "of them out, or the engine"
            )
    if decoder_prefix:
        raise UserError(
            f"decoder_prefix with num_beams={settings.num_beams} would be another search in CTranslate2: leave "
            "one of them out, or the engine"
        )
