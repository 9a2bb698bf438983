"""ELECTRA that writes: a generator fills masks, a discriminator says which tokens to redo."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask import hub
from unmask.electra.answers import Canvas, choose_lengths, length_levels, open_canvas
from unmask.electra.batch import Batch, Rows, check_length
from unmask.electra.gaps import FilledText, fill_gaps
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.generation.limits import new_token_limit
from unmask.generation.refinement import Refined, Refinement, Watch, refine
from unmask.nn.ragged import Layout

logger = logging.getLogger("unmask")

#: Tokens written where the caller gives no limit: Transformers' default for generation.
DEFAULT_NEW_TOKENS = 20
#: The key of generation_config.json that says that a model answers.
ANSWER_LENGTH = "answer_length"


class ElectraForConditionalGeneration(nn.Module):
    """A generator and, where there is one, a discriminator that judges what it wrote.

    Args:
        tokenizer: says which ids are special.
        discriminator: None: the generator's own confidence decides what is redone.
        answer_length: of a model that answers: tokens that an answer may fill, the [SEP] that ends it included;
            None: it continues texts.

    Raises:
        UserError: the three do not have the same vocabulary, or an answer that the positions have no room for.
    """

    def __init__(
        self,
        generator: ElectraForMaskedLM,
        discriminator: ElectraForPreTraining | None,
        tokenizer: ElectraTokenizer,
        answer_length: int | None = None,
    ) -> None:
        super().__init__()
        size = generator.config.vocab_size
        if discriminator is not None and discriminator.config.vocab_size != size:
            raise UserError(
                f"the generator knows {size} tokens, the discriminator {discriminator.config.vocab_size}: "
                "they are not a pair"
            )
        if tokenizer.vocab_size > size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the generator knows {size}: "
                "they do not belong together"
            )
        self.generator = generator
        self.discriminator = discriminator
        self.tokenizer = tokenizer
        self.answer_length = answer_length
        # [CLS], a token of the source and [SEP] stand before an answer.
        if answer_length is not None and not 1 < answer_length <= self.positions - 3:
            raise UserError(
                f"answers of {answer_length} tokens do not fit into {self.positions} positions beside a source"
            )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        tokenizer: ElectraTokenizer | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> Self:
        """Load a pair (`generator/`, and `discriminator/` if it is there) or a plain masked-LM directory.

        Args:
            tokenizer: None: read from the directory, or from inside either half.

        Raises:
            UserError: nothing found, a damaged file, parts that do not fit each other.
        """
        directory = hub.find_model(name_or_path, revision=revision)
        is_pair = (directory / GENERATOR).is_dir()
        place = directory / GENERATOR if is_pair else directory
        generator = ElectraForMaskedLM.from_pretrained(place, dtype=dtype, device=device)
        discriminator = None
        if is_pair and (directory / DISCRIMINATOR).is_dir():
            discriminator = ElectraForPreTraining.from_pretrained(
                directory / DISCRIMINATOR, dtype=dtype, device=device
            )
        else:
            logger.warning(
                "%s has no discriminator: what to redo is decided by the generator's own confidence",
                directory,
            )
        if tokenizer is None:
            tokenizer = ElectraTokenizer.from_pretrained(directory)
        settings = directory / hub.GENERATION_CONFIG
        answer_length = hub.read_json(settings).get(ANSWER_LENGTH) if settings.is_file() else None
        if answer_length is not None and type(answer_length) is not int:
            raise UserError(
                f"{settings}: {ANSWER_LENGTH} is {answer_length!r}, it must be a number of tokens"
            )
        return cls(generator, discriminator, tokenizer, answer_length).eval()

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `generator/`, `discriminator/` if there is one, and the tokenizer beside them.

        Of a model that answers, generation_config.json holds `answer_length`.
        """
        path = Path(directory)
        self.generator.save_pretrained(path / GENERATOR)
        if self.discriminator is not None:
            self.discriminator.save_pretrained(path / DISCRIMINATOR)
        self.tokenizer.save_pretrained(path)
        if self.answer_length is not None:
            hub.write_json(path / hub.GENERATION_CONFIG, {ANSWER_LENGTH: self.answer_length})

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        num_return_sequences: int = 1,
        candidates: int | None = None,
        rounds: int = 8,
        judged: bool = False,
        revisions: int = 2,
        block: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> Tensor:
        """Fill masks behind each prompt, the most confident first; then redo the worst.

        A model that was fine-tuned on pairs (`answer_length`) answers its prompts: it decides how long the answer
        is (`unmask.electra.answers`), and the answer alone is returned. Any other continues them: the [SEP] that
        ends an encoded prompt is moved behind what is written, and the whole is returned. Prompts stay as they
        are, but for [MASK] in them, which are filled as well. No other special token is written.

        Args:
            input_ids: (batch, width) int64, padded on either side, or a list of lists of ids.
            attention_mask: (batch, width), nonzero on tokens; None: everything is a token.
            max_length: (continuing) tokens of a row, prompt and [CLS] … [SEP] counted; or
            max_new_tokens: most tokens to write (continuing: default 20, or as many as fit; answering: what the
                model was trained for). Give one of the two.
            num_return_sequences: results for each prompt, side by side, where candidates are compared the best
                first. Several continuations need a temperature; several answers differ in their lengths.
            candidates: texts that are written for each prompt, of which those with the highest mean score are
                returned: the discriminator's log-probability that a token is no replacement, or, without one, that
                of the generator at the time of writing. Default: as many as are returned, not compared.
            rounds: passes of the generator that fill the masks, or each block of them.
            judged: between the rounds the discriminator says which of all tokens stay, not the generator's
                confidence which of the new ones; a round but the last then costs a pass of each.
            revisions: how often the worst quarter is sent back afterwards.
            block: tokens that are filled at a time, from left to right, for long texts; None: all.
            temperature: 0 takes the likeliest token everywhere.
            seed: of the draws, 0 or more; row r's depend on (seed, r) and not on the other rows.
            watch: is told before each pass of the generator; what it raises ends the work.

        Returns:
            (batch · num_return_sequences, longest) int64, padded on the right.

        Raises:
            UserError: both limits, one that leaves nothing to write, more tokens than positions in the model,
                several results without a temperature, fewer candidates than results.
        """
        plan = Refinement(
            rounds=rounds, judged=judged, revisions=revisions, block=block, temperature=temperature, seed=seed
        )
        copies = self._copies(num_return_sequences, candidates, temperature)
        prompts = Batch.of(self.generator.config, input_ids, attention_mask, None, self.device).packed
        rows = prompts.ids.split(list(prompts.layout.lengths))
        if self.answer_length is None:
            canvas = self._continuations(_repeated(rows, copies), max_length, max_new_tokens)
        elif max_length is not None:
            raise UserError("this model answers, a result does not hold the prompt: give max_new_tokens")
        else:
            canvas = self._answers(rows, max_new_tokens, copies, plan)
        written = self.write(canvas, plan, watch)
        texts = [
            text[start:stop]
            for text, start, stop in zip(
                written.ids.split(list(canvas.layout.lengths)), canvas.starts, canvas.stops, strict=True
            )
        ]
        if copies > num_return_sequences:
            scores = self.scores(written, canvas).view(-1, copies)
            best = scores.argsort(dim=1, descending=True, stable=True)[:, :num_return_sequences]
            first = torch.arange(len(best), device=best.device)[:, None] * copies
            texts = [texts[place] for place in (first + best).flatten().tolist()]
        return nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=self.tokenizer.pad_token_id)

    @torch.inference_mode()
    def fill(
        self,
        input_ids: Sequence[Sequence[int]],
        *,
        at_least: int = 1,
        at_most: int = 8,
        rounds: int = 8,
        revisions: int = 2,
        temperature: float = 0.0,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> list[FilledText]:
        """Fill gaps with as many tokens as read best (`unmask.electra.gaps`); each [MASK] of a text is a gap.

        Args:
            input_ids: a list of ids for each text, special ones included.
            at_least, at_most: tokens that a gap may have; the same number twice leaves nothing to decide.
            rounds, revisions, temperature, seed: as for `generate`; text r draws by seed + r.
            watch: is told before each pass of the generator; what it raises ends the work.

        Raises:
            UserError: a text without a gap or too long for the model, a range that is none.
        """
        texts = []
        for number, ids in enumerate(input_ids):
            plan = Refinement(rounds=rounds, revisions=revisions, temperature=temperature, seed=seed + number)
            texts.append(fill_gaps(self, ids, at_least=at_least, at_most=at_most, plan=plan, watch=watch))
        return texts

    def _copies(self, results: int, candidates: int | None, temperature: float) -> int:
        """How many texts to write for each prompt."""
        if results < 1:
            raise UserError(f"num_return_sequences={results} must be at least 1")
        copies = results if candidates is None else candidates
        if copies < results:
            raise UserError(f"candidates={copies} are fewer than num_return_sequences={results}")
        if copies > 1 and temperature == 0 and self.answer_length is None:
            name = "num_return_sequences" if candidates is None else "candidates"
            raise UserError(f"{name}={copies} needs a temperature above 0: without one all would be the same")
        return copies

    def _continuations(
        self, rows: Sequence[Tensor], max_length: int | None, max_new_tokens: int | None
    ) -> Canvas:
        """Prompts with masks between them and their [SEP]."""
        sep = self.tokenizer.sep_token_id
        prompts = [row[:-1] if row[-1] == sep else row for row in rows]
        texts = [self._with_masks(prompt, max_length, max_new_tokens) for prompt in prompts]
        layout = Layout.of([text.numel() for text in texts], self.device)
        self.check_length(layout.longest)
        return Canvas(torch.cat(texts), layout, None, [0] * len(texts), list(layout.lengths))

    def _with_masks(self, prompt: Tensor, max_length: int | None, max_new_tokens: int | None) -> Tensor:
        room = self.positions - prompt.numel() - 1
        new = new_token_limit(
            max_new_tokens,
            max_length,
            prompt_length=prompt.numel() + 1,
            defaults={},
            fallback=max(1, min(DEFAULT_NEW_TOKENS, room)),
        )
        masks = prompt.new_full((new,), self.tokenizer.mask_token_id)
        return torch.cat([prompt, masks, prompt.new_tensor([self.tokenizer.sep_token_id])])

    def _answers(
        self, rows: Sequence[Tensor], max_new_tokens: int | None, copies: int, plan: Refinement
    ) -> Canvas:
        """Each prompt, so many times, with masks for an answer whose length the generator has chosen."""
        assert self.answer_length is not None
        limit = new_token_limit(
            max_new_tokens, None, prompt_length=0, defaults={}, fallback=self.answer_length
        )
        mask_id, sep_id = self.tokenizer.mask_token_id, self.tokenizer.sep_token_id
        places = [self.answer_length] * len(rows)
        canvas = open_canvas(rows, places, ended=False, mask_id=mask_id, sep_id=sep_id)
        self.check_length(canvas.layout.longest)
        levels = length_levels(len(rows) * copies, copies, temperature=plan.temperature, seed=plan.seed)
        with _without_dropout(self.generator):
            lengths = choose_lengths(self.generator, canvas, sep_id, levels.to(self.device))
        chosen = lengths.clamp(max=limit).tolist()
        return open_canvas(_repeated(rows, copies), chosen, ended=True, mask_id=mask_id, sep_id=sep_id)

    def scores(self, written: Refined, canvas: Canvas) -> Tensor:
        """(batch,) the mean score of what was written, at most 0, the higher the better."""
        if self.discriminator is None:
            scores = written.confidence.log()
        else:
            with _without_dropout(self.discriminator):
                logits = self.discriminator.token_logits(written.ids, canvas.layout, canvas.types)
            scores = F.logsigmoid(-logits.float()).index_select(0, written.places)
        return written.row_means(scores, canvas.layout.batch)

    def check_length(self, length: int) -> None:
        """Refuse a text that one of the halves has no positions for.

        Raises:
            UserError: `length` is too long.
        """
        check_length(length, self.positions)

    @property
    def positions(self) -> int:
        """The longest text in tokens that all halves have positions for."""
        halves = [half for half in (self.generator, self.discriminator) if half is not None]
        return min(half.config.max_position_embeddings for half in halves)

    def write(self, canvas: Canvas, plan: Refinement, watch: Watch | None = None) -> Refined:
        """Fill all masks of a canvas, without gradient and without dropout.

        Args:
            watch: is told before each pass of the generator.
        """
        generator, discriminator, types = self.generator, self.discriminator, canvas.types
        unknown = range(self.tokenizer.vocab_size, generator.config.vocab_size)
        forbidden = torch.tensor([*sorted(self.tokenizer.special_ids), *unknown], device=canvas.ids.device)

        def propose(ids: Tensor, layout: Layout, at: Tensor) -> Tensor:
            return generator.logits(generator.hidden(ids, layout, types, at=at))

        def judge(ids: Tensor, layout: Layout) -> Tensor:
            assert discriminator is not None
            return discriminator.token_logits(ids, layout, types)

        with _without_dropout(*self.children()):
            return refine(
                canvas.ids,
                canvas.layout,
                propose,
                None if discriminator is None else judge,
                mask_id=self.tokenizer.mask_token_id,
                forbidden=forbidden,
                plan=plan,
                watch=watch,
            )


def _repeated(rows: Sequence[Tensor], copies: int) -> list[Tensor]:
    return [row for row in rows for _ in range(copies)]


@contextmanager
def _without_dropout(*models: nn.Module) -> Iterator[None]:
    """Models in evaluation mode for a while, also where one is in the middle of its training."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
