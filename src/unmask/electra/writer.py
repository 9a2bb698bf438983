"""ELECTRA that writes: a generator fills masks, a discriminator says which tokens to redo."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from unmask import hub
from unmask.electra.batch import Batch, Rows, check_length
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.generation.limits import new_token_limit
from unmask.generation.refinement import Refinement, refine
from unmask.nn.ragged import Layout

logger = logging.getLogger("unmask")

#: Tokens written where the caller gives no limit: Transformers' default for generation.
DEFAULT_NEW_TOKENS = 20


class ElectraForConditionalGeneration(nn.Module):
    """A generator and, where there is one, a discriminator that judges what it wrote.

    Args:
        tokenizer: says which ids are special.
        discriminator: None: the generator's own confidence decides what is redone.

    Raises:
        UserError: the three do not have the same vocabulary.
    """

    def __init__(
        self,
        generator: ElectraForMaskedLM,
        discriminator: ElectraForPreTraining | None,
        tokenizer: ElectraTokenizer,
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
        return cls(generator, discriminator, tokenizer).eval()

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `generator/`, `discriminator/` if there is one, and the tokenizer beside them."""
        path = Path(directory)
        self.generator.save_pretrained(path / GENERATOR)
        if self.discriminator is not None:
            self.discriminator.save_pretrained(path / DISCRIMINATOR)
        self.tokenizer.save_pretrained(path)

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
        rounds: int = 8,
        revisions: int = 2,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Tensor:
        """Continue prompts: append masks and fill them, the most confident first; then redo the worst.

        The [SEP] that ends an encoded prompt is moved behind what is written. The prompt stays as it is, but
        for [MASK] in it, which are filled as well. No special token is written.

        Args:
            input_ids: (batch, width) int64, padded on either side, or a list of lists of ids.
            attention_mask: (batch, width), nonzero on tokens; None: everything is a token.
            max_length: tokens of a row, prompt and [CLS] … [SEP] counted; or
            max_new_tokens: tokens to write (default 20, or as many as fit). Give one of the two.
            num_return_sequences: results for each prompt, side by side; more than one needs a temperature.
            rounds: passes of the generator that fill the masks.
            revisions: how often the worst quarter is sent back.
            temperature: 0 takes the likeliest token everywhere.
            seed: of the draws, 0 or more; row r's depend on (seed, r) and not on the other rows.

        Returns:
            (batch · num_return_sequences, longest) int64, padded on the right.

        Raises:
            UserError: both limits, one that leaves nothing to write, more tokens than positions in the model,
                several results without a temperature.
        """
        plan = Refinement(rounds=rounds, revisions=revisions, temperature=temperature, seed=seed)
        if num_return_sequences < 1:
            raise UserError(f"num_return_sequences={num_return_sequences} must be at least 1")
        if num_return_sequences > 1 and temperature == 0:
            raise UserError(
                f"num_return_sequences={num_return_sequences} needs a temperature above 0: "
                "without one all would be the same"
            )
        prompts = self._prompts(input_ids, attention_mask)
        rows = [
            self._with_masks(prompt, max_length, max_new_tokens)
            for prompt in prompts
            for _ in range(num_return_sequences)
        ]
        layout = Layout.of([row.numel() for row in rows], self.device)
        self.check_length(layout.longest)
        written = self._refine(torch.cat(rows), layout, plan)
        out = written.new_full((layout.batch * layout.longest,), self.tokenizer.pad_token_id)
        return out.index_copy(0, layout.cells, written).view(layout.batch, layout.longest)

    def _prompts(self, input_ids: Rows, attention_mask: Tensor | None) -> list[Tensor]:
        """Each row's tokens, without the [SEP] at the end."""
        config = self.generator.config
        packed = Batch.of(config, input_ids, attention_mask, None, self.device).packed
        rows = packed.ids.split(list(packed.layout.lengths))
        ends = packed.ids[
            packed.layout.starts + torch.tensor(packed.layout.lengths, device=packed.ids.device) - 1
        ]
        sep = self.tokenizer.sep_token_id
        return [row[:-1] if end == sep else row for row, end in zip(rows, ends.tolist(), strict=True)]

    def _with_masks(self, prompt: Tensor, max_length: int | None, max_new_tokens: int | None) -> Tensor:
        room = self._positions() - prompt.numel() - 1
        new = new_token_limit(
            max_new_tokens,
            max_length,
            prompt_length=prompt.numel() + 1,
            defaults={},
            fallback=max(1, min(DEFAULT_NEW_TOKENS, room)),
        )
        masks = prompt.new_full((new,), self.tokenizer.mask_token_id)
        return torch.cat([prompt, masks, prompt.new_tensor([self.tokenizer.sep_token_id])])

    def check_length(self, length: int) -> None:
        """Refuse a text that one of the halves has no positions for.

        Raises:
            UserError: `length` is too long.
        """
        check_length(length, self._positions())

    def _positions(self) -> int:
        halves = [half for half in (self.generator, self.discriminator) if half is not None]
        return min(half.config.max_position_embeddings for half in halves)

    def _refine(self, ids: Tensor, layout: Layout, plan: Refinement) -> Tensor:
        generator, discriminator = self.generator, self.discriminator
        unknown = range(self.tokenizer.vocab_size, generator.config.vocab_size)
        forbidden = torch.tensor([*sorted(self.tokenizer.special_ids), *unknown], device=ids.device)
        with _without_dropout(*self.children()):
            return refine(
                ids,
                layout,
                lambda ids, layout, at: generator.logits(generator.hidden(ids, layout, at=at)),
                None if discriminator is None else discriminator.token_logits,
                mask_id=self.tokenizer.mask_token_id,
                forbidden=forbidden,
                plan=plan,
            )


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
