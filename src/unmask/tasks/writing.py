"""Text from any model that writes, whichever family it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from unmask import hub
from unmask.electra.encoder_decoder import MODEL_TYPE, EncoderDecoderModel
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.export.ct2 import FILES as CT2_FILES
from unmask.export.ct2_writer import CTranslate2Writer
from unmask.generation.batching import batches_by_length
from unmask.generation.output import Hypothesis
from unmask.generation.rules import Constraint
from unmask.generation.settings import DEFAULTS
from unmask.generation.writing import BATCH_TOKENS
from unmask.settings import nearest
from unmask.t5 import constraints
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import T5Writer
from unmask.tasks.encoder_decoder import EncoderDecoderWriter
from unmask.tasks.models import family_of
from unmask.tasks.texts import TextFile
from unmask.tasks.writing_settings import WritingSettings

#: What runs a model.
Engine = Literal["unmask", "ctranslate2"]
#: What `ElectraForConditionalGeneration.generate` takes.
ELECTRA_OPTIONS = (
    "max_new_tokens",
    "max_length",
    "num_return_sequences",
    "temperature",
    "seed",
    "rounds",
    "judged",
    "revisions",
    "candidates",
    "block",
)


class TextWriter(Protocol):
    """Something that writes hypotheses for texts; an engine of another kind fits here too."""

    def write(self, texts: Sequence[str], first: int = 0) -> list[list[Hypothesis]]:
        """The results for each text; `first` is the number of the first of them, which draws depend on.

        A text's results do not depend on which others it is given with.
        """

    def stream(self, text: str, number: int = 0) -> Iterator[str]:
        """The one result for a text, piece by piece."""

    @property
    def results_each(self) -> int:
        """Results for each text."""

    @property
    def first_seed(self) -> int | None:
        """The seed of text number 0; None where nothing is drawn."""


def load_writer(
    name_or_path: str,
    settings: WritingSettings = WritingSettings(),  # noqa: B008 (frozen)
    *,
    engine: Engine = "unmask",
    device: str | torch.device = "cpu",
    dtype: str | None = None,
    **options: Any,
) -> TextWriter:
    """A model that writes: T5 and encoder–decoders answer texts, ELECTRA continues or, if it learnt to, answers them.

    Args:
        engine: "ctranslate2" runs what `unmask export ct2` wrote.
        dtype: as for a model's `from_pretrained`.
        options: of `GenerationSettings` for T5; for ELECTRA those of its `generate`.

    Raises:
        UserError: no such model, one that does not write, an option that its family does not have.
    """
    if settings.batch_tokens is not None and settings.batch_tokens < 1:
        raise UserError(f"batch_tokens={settings.batch_tokens} must be at least 1")
    directory = hub.find_model(name_or_path)
    if engine == "ctranslate2":
        _check_t5(options)
        return _ctranslate2(directory, settings, device=device, dtype=dtype, **options)
    if all((directory / name).is_file() for name in CT2_FILES):
        raise UserError(f"{directory} is an export for CTranslate2: run it with --engine ctranslate2")
    family = family_of(directory)
    if family == MODEL_TYPE:
        _check_t5(options)
        return _encoder_decoder(directory, settings, device=device, dtype=dtype, **options)
    if family == "t5":
        _check_t5(options)
        tokenizer = load_tokenizer(directory)
        constraint = load_constraint(tokenizer, settings)
        model = T5ForConditionalGeneration.from_pretrained(directory, device=device, dtype=dtype)
        return T5Writer(
            model,
            tokenizer,
            prefix=settings.prefix,
            max_source_length=settings.max_source_length,
            decoder_prefix=settings.decoder_prefix,
            constraint=constraint,
            scores=settings.scores,
            batch_tokens=BATCH_TOKENS if settings.batch_tokens is None else settings.batch_tokens,
            **options,
        )
    _check_electra(settings, options)
    electra = ElectraForConditionalGeneration.from_pretrained(directory, device=device, dtype=dtype)
    return ElectraWriter(electra, settings.batch_tokens or BATCH_TOKENS, **options)


def _encoder_decoder(
    directory: Path, settings: WritingSettings, *, device: Any, dtype: str | None, **options: Any
) -> EncoderDecoderWriter:
    if settings.is_constrained:
        raise UserError(
            "choices, regex and json_schema are options of T5, this model is none: leave them out"
        )
    return EncoderDecoderWriter(
        EncoderDecoderModel.from_pretrained(directory, device=device, dtype=dtype),
        ElectraTokenizer.from_pretrained(directory),
        prefix=settings.prefix,
        max_source_length=settings.max_source_length,
        decoder_prefix=settings.decoder_prefix,
        scores=settings.scores,
        batch_tokens=BATCH_TOKENS if settings.batch_tokens is None else settings.batch_tokens,
        **options,
    )


def _ctranslate2(directory: Path, settings: WritingSettings, **options: Any) -> CTranslate2Writer:
    if settings.is_constrained:
        raise UserError(
            "choices, regex and json_schema do not work with CTranslate2: leave them out, or the engine"
        )
    return CTranslate2Writer(
        directory,
        prefix=settings.prefix,
        max_source_length=settings.max_source_length,
        decoder_prefix=settings.decoder_prefix,
        scores=settings.scores,
        batch_tokens=settings.batch_tokens or BATCH_TOKENS,
        **options,
    )


def load_constraint(tokenizer: AnyT5Tokenizer, settings: WritingSettings) -> Constraint | None:
    """What the settings say may be written; None: anything.

    Raises:
        UserError: several constraints, a file that cannot be read, what the vocabulary cannot write.
    """
    named = [name for name in ("choices", "regex", "json_schema") if getattr(settings, name) is not None]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} exclude each other: give one")
    if settings.choices is not None:
        # A choice is written once, however often the file has it; lines without text are no choices.
        lines = dict.fromkeys(line for line in TextFile(settings.choices) if line)
        return constraints.choices(tokenizer, lines)
    if settings.regex is not None:
        return constraints.regex(tokenizer, settings.regex)
    if settings.json_schema is not None:
        return constraints.json_schema(tokenizer, hub.read_json(settings.json_schema))
    return None


class ElectraWriter:
    """ELECTRA as a writer: each text with its continuation, or its answer."""

    def __init__(self, model: ElectraForConditionalGeneration, batch_tokens: int, **options: Any) -> None:
        """Args:
        options: some of ELECTRA_OPTIONS.

        Raises:
            UserError: no result is asked for.
        """
        self.model, self.batch_tokens, self.options = model, batch_tokens, options
        self.results_each: int = options.get("num_return_sequences", 1)
        if self.results_each < 1:
            raise UserError(f"num_return_sequences={self.results_each} must be at least 1")
        self.first_seed: int | None = options.get("seed", 0) if options.get("temperature", 0) else None

    def write(self, texts: Sequence[str], first: int = 0) -> list[list[Hypothesis]]:
        encoded = self.model.tokenizer.encode_batch(texts)
        results: list[list[Hypothesis]] = [[] for _ in texts]
        # Draws depend on a row's place in its batch: where there are any, each text is a batch.
        budget = self.batch_tokens if self.first_seed is None else 1
        for places in batches_by_length(
            [len(ids) for ids in encoded],
            budget,
            extra=self.model.answer_length or 0,
            copies=self.options.get("candidates", self.results_each),
        ):
            options = dict(self.options)
            if self.first_seed is not None:
                options["seed"] = self.first_seed + first + places[0]
            written = self.model.generate([encoded[place] for place in places], **options)
            found = self.model.tokenizer.batch_decode(written, skip_special_tokens=True)
            each = self.results_each
            for row, place in enumerate(places):
                results[place] = [Hypothesis(text) for text in found[row * each : (row + 1) * each]]
        return results

    def stream(self, text: str, number: int = 0) -> Iterator[str]:
        """ELECTRA writes all tokens at once.

        Raises:
            UserError: always.
        """
        raise UserError("ELECTRA cannot stream, it writes no token before the others: leave --stream out")


def _check_t5(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in ELECTRA_OPTIONS and name not in DEFAULTS:
            raise UserError(
                f"{name} is an option of an ELECTRA that fills masks, this model is none: leave it out"
            )


def _check_electra(settings: WritingSettings, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in ELECTRA_OPTIONS:
            raise UserError(f"ELECTRA has no option {name}{nearest(name, ELECTRA_OPTIONS)}")
    for field in fields(settings):
        if field.name != "batch_tokens" and getattr(settings, field.name) != field.default:
            raise UserError(f"{field.name} is an option of T5, this model is an ELECTRA: leave it out")


def job_settings(name_or_path: str, settings: WritingSettings) -> dict[str, Any]:
    """What the results of a job depend on beside the options of decoding, as JSON values.

    Raises:
        UserError: no such model, a file of a constraint that cannot be read.
    """
    values = {name: value for name, value in vars(settings).items() if not isinstance(value, Path)}
    files = {name: value for name, value in vars(settings).items() if isinstance(value, Path)}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return {"model": fingerprint(hub.find_model(name_or_path)), "writing": values | hashes}


def fingerprint(directory: Path) -> str:
    """A hash of a model directory, of its files' names and of all that is in them; with an adapter, of its base."""
    digest = hashlib.sha256()
    for file in sorted(file for file in directory.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(directory)} {file.stat().st_size} ".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    base = hub.base_of(directory)
    if base != directory:
        digest.update(fingerprint(base).encode())
    return digest.hexdigest()
