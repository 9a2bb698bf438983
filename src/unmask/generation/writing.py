"""Many texts in, many texts out: batches of similar length, results in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.generation.batching import batches_by_length
from unmask.generation.constraints import Choices
from unmask.generation.output import Hypothesis, StreamedToken
from unmask.generation.rules import Constraint
from unmask.generation.settings import GenerationSettings
from unmask.text.tokenizer import Tokenizer

#: Tokens that a batch holds by default, read and to be written: 64 rows of 64 and 64. Twice as many took as long
#: and 240 MiB more (t5-small's shape in float32, 600 lines of 1 to 60 words, 32 new tokens, one thread).
BATCH_TOKENS = 8192
#: The most tokens that are written where neither the caller nor generation_config.json gives a limit.
NEW_TOKENS = 64
#: What decoders show of a character whose last bytes are not written yet.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class SequenceModel(Protocol):
    """A model that writes targets for padded sources."""

    generation_defaults: dict[str, Any]

    @property
    def config(self) -> Any:
        """With `eos_token_id` and `pad_token_id`."""

    @property
    def device(self) -> torch.device: ...

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """Ids (rows, length), or with return_scores a GenerationOutput."""

    def stream(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Iterator[StreamedToken]: ...


class SequenceWriter:
    """A model with its tokenizer and the options of decoding: texts in, hypotheses out.

    What is written for an input does not depend on which others it is given with. Where tokens are drawn,
    input number k is drawn with the seed `seed + k`, so any of them can be drawn again alone.

    A family's writer says by `_encode` how its sources are read.
    """

    def __init__(
        self,
        model: SequenceModel,
        tokenizer: Tokenizer,
        *,
        prefix: str = "",
        max_source_length: int | None = None,
        decoder_prefix: str = "",
        constraint: Constraint | None = None,
        scores: bool = False,
        batch_tokens: int = BATCH_TOKENS,
        **options: Any,
    ) -> None:
        """Args:
        prefix: what is put before each text, such as "summarize: ".
        max_source_length: tokens of a text that are read, the end included; None: all.
        decoder_prefix: what every result begins with.
        constraint: what may be written.
        scores: whether hypotheses carry scores.
        batch_tokens: see `generation.batching`; what a batch holds in memory is in proportion to it.
        options: any of `GenerationSettings`; what is not named is as generation_config.json says. Without any
            limit at most 64 tokens are written.

        Raises:
            UserError: an unknown option, options that exclude each other, a prefix that leaves nothing to
                write, more different results wanted than there are choices.
        """
        if batch_tokens < 1:
            raise UserError(f"batch_tokens={batch_tokens} must be at least 1")
        if max_source_length is not None and max_source_length < 1:
            raise UserError(f"max_source_length={max_source_length} must be at least 1, for the end")
        self.model, self.tokenizer = model, tokenizer
        self.prefix, self.max_source_length = prefix, max_source_length
        self.constraint, self.scores, self.batch_tokens = constraint, scores, batch_tokens
        self.decoder_prefix = tokenizer.encode(decoder_prefix, add_special_tokens=False)
        self.options = with_limit(options, model.generation_defaults)
        self.settings = GenerationSettings.resolve(self.options, model.generation_defaults)
        if isinstance(constraint, Choices) and self.settings.num_beams > 1:
            _check_count(constraint, self.results_each)
        self.limit = self.settings.token_limit(1 + len(self.decoder_prefix), NEW_TOKENS)
        self.first_seed = self._first_seed()

    @property
    def results_each(self) -> int:
        """Results for each text."""
        return self.settings.num_return_sequences

    def _first_seed(self) -> int | None:
        """The seed of input 0; None where nothing is drawn."""
        if not self.settings.do_sample:
            return None
        seed = self.settings.seed
        if seed is None:
            return int(torch.randint(2**31, ()))
        if not isinstance(seed, int):
            raise UserError(f"seed={seed!r} must be one number: input k is drawn with seed + k")
        return seed

    def write(self, texts: Sequence[str], first: int = 0) -> list[list[Hypothesis]]:
        """The results for each text, best first where beams were searched.

        Args:
            texts: the inputs.
            first: the number of the first of them, which draws depend on.

        Raises:
            UserError: a constraint that cannot be met, a token that the weights do not know.
        """
        encoded = self._encode(texts)
        copies = max(self.settings.num_beams, self.settings.num_return_sequences)
        guesses = self.settings.draft_tokens if self.settings.speculate else 0
        extra = 1 + len(self.decoder_prefix) + self.limit + guesses
        results: list[list[Hypothesis]] = [[] for _ in texts]
        lengths = [len(ids) for ids in encoded]
        for places in batches_by_length(lengths, self.batch_tokens, extra=extra, copies=copies):
            found = self._generate(
                [encoded[place] for place in places], self._options([first + place for place in places])
            )
            each = self.settings.num_return_sequences
            for row, place in enumerate(places):
                results[place] = found[row * each : (row + 1) * each]
        return results

    def stream(self, text: str, number: int = 0) -> Iterator[str]:
        """The one result for a text, piece by piece as it is written; joined, the pieces are its text.

        Raises:
            UserError: also at once, for beams and for several results, which are not known until the end.
        """
        if self.settings.num_return_sequences > 1:
            raise UserError(
                f"num_return_sequences={self.settings.num_return_sequences} cannot stream: "
                "stream one result, or call generate"
            )
        ids, mask = _padded(self._encode([text]), self.model.device)
        tokens = self.model.stream(ids, mask, constraint=self.constraint, **self._options([number]))
        return text_pieces(self.tokenizer, self.decoder_prefix, (token.id for token in tokens))

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, `self.prefix` before it, cut to `self.max_source_length`."""
        raise NotImplementedError

    def _options(self, numbers: Sequence[int]) -> dict[str, Any]:
        """The options of a batch of inputs with these numbers."""
        options = dict(self.options)
        if self.decoder_prefix:
            options["decoder_prefix_ids"] = self.decoder_prefix
        if self.first_seed is not None:
            options["seed"] = [self.first_seed + number for number in numbers]
        return options

    def _generate(self, rows: Sequence[Sequence[int]], options: dict[str, Any]) -> list[Hypothesis]:
        """The results of a batch of inputs, `num_return_sequences` for each, side by side."""
        ids, mask = _padded(rows, self.model.device)
        first = 1 + len(self.decoder_prefix)
        if not self.scores:
            sequences = self.model.generate(ids, mask, constraint=self.constraint, **options)
            texts = self.tokenizer.batch_decode(sequences, skip_special_tokens=True)
            ends = self._complete(sequences[:, first:])
            return [Hypothesis(text, complete) for text, complete in zip(texts, ends, strict=True)]
        output = self.model.generate(ids, mask, constraint=self.constraint, return_scores=True, **options)
        found = zip(
            self.tokenizer.batch_decode(output.sequences, skip_special_tokens=True),
            output.sequences[:, first:].tolist(),
            self._complete(output.sequences[:, first:]),
            output.sequence_scores.tolist(),
            output.token_scores[:, first:].tolist(),
            strict=True,
        )
        return [self._scored(*row) for row in found]

    def _complete(self, written: Tensor) -> list[bool]:
        """(rows, length) → whether each is whole; the empty place of a beam is, too."""
        config = self.model.config
        ends = (written == config.eos_token_id).any(1) | (written == config.pad_token_id).all(1)
        whole: list[bool] = ends.tolist()
        return whole

    def _scored(
        self, text: str, ids: list[int], complete: bool, score: float, token_scores: list[float]
    ) -> Hypothesis:
        if score == float("-inf"):
            return Hypothesis(text, score=score)
        end = self.model.config.eos_token_id
        if end in ids:
            ids = ids[: ids.index(end) + 1]
        tokens = tuple(token or "" for token in self.tokenizer.convert_ids_to_tokens(ids))
        return Hypothesis(text, complete, score, tokens, tuple(token_scores[: len(ids)]))


def text_pieces(tokenizer: Tokenizer, prefix: Sequence[int], tokens: Iterable[int]) -> Iterator[str]:
    """The text of a prefix and of tokens as they come, in pieces that hold whole characters."""
    written, shown = list(prefix), 0
    for token in tokens:
        written.append(token)
        # The last character may still be waiting for bytes.
        text = tokenizer.decode(written, skip_special_tokens=True).rstrip(REPLACEMENT)
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)
    rest = tokenizer.decode(written, skip_special_tokens=True)[shown:]
    if rest:
        yield rest


def with_limit(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The options with a limit, where nobody has given one."""
    given = {name for name, value in (defaults | options).items() if value is not None}
    return options if given & {"max_new_tokens", "max_length"} else options | {"max_new_tokens": NEW_TOKENS}


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, (rows, longest) each."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return ids.to(device), mask.to(device)


def _check_count(choices: Choices, wanted: int) -> None:
    """Raise a UserError where there are fewer choices than different results wanted."""
    if wanted > choices.count:
        raise UserError(
            f"num_return_sequences={wanted}: beams give different results and there are {choices.count} choices; "
            f"ask for at most {choices.count}"
        )
