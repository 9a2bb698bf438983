"""What ELECTRA makes of a text: its gaps filled, the generator's proposals for them, the discriminator's suspicions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.generation.refinement import Watch
from unmask.nn.ragged import Layout
from unmask.text.gaps import GAP


@dataclass(frozen=True)
class Reading:
    """A text as ELECTRA reads it.

    Attributes:
        tokens: of the text with every gap filled by the likeliest proposal, [CLS] and [SEP] left out.
        proposals: place in `tokens` of each gap → (token, probability), the likeliest first.
        suspicion: for each token the discriminator's probability that it was replaced; None without a
            discriminator.
    """

    tokens: list[str]
    proposals: dict[int, list[tuple[str, float]]]
    suspicion: list[float] | None


@torch.inference_mode()
def read_text(
    model: ElectraForConditionalGeneration, tokenizer: ElectraTokenizer, text: str, *, proposals: int = 5
) -> Reading:
    """Fill each gap (`___`, one token each) and judge the whole.

    Args:
        proposals: how many tokens to name for each gap.

    Raises:
        UserError: the text is longer than the model's positions.
    """
    ids = torch.tensor(tokenizer.encode(text.replace(GAP, tokenizer.mask_token)), device=model.device)
    layout = Layout.of([ids.numel()], model.device)
    model.check_length(ids.numel())
    gaps = (ids == tokenizer.mask_token_id).nonzero().squeeze(1)
    named: dict[int, list[tuple[str, float]]] = {}
    if gaps.numel():
        logits = model.generator.logits(model.generator.hidden(ids, layout, at=gaps)).float()
        logits[:, sorted(tokenizer.special_ids)] = float("-inf")
        top = logits.softmax(-1).topk(min(proposals, logits.shape[-1]))
        ids = ids.index_copy(0, gaps, top.indices[:, 0])
        for place, row, shares in zip(gaps.tolist(), top.indices.tolist(), top.values.tolist(), strict=True):
            names = [str(name) for name in tokenizer.convert_ids_to_tokens(row)]
            # Places count without the [CLS] in front.
            named[place - 1] = list(zip(names, shares, strict=True))
    return _judged(model, ids, named)


@torch.inference_mode()
def read_filled(
    model: ElectraForConditionalGeneration,
    text: str,
    *,
    at_least: int,
    at_most: int,
    watch: Watch | None = None,
) -> tuple[Reading, list[str]]:
    """Fill each gap (`___`) with as many tokens as read best, and judge the whole.

    Args:
        watch: is told before each pass of the generator.

    Returns:
        The text as it is read then, and what stands in each gap.

    Raises:
        UserError: no gap, a range that is none, a text that is longer than the model's positions.
    """
    tokenizer = model.tokenizer
    # Gaps that touch are several.
    ids = tokenizer.encode(text.replace(GAP, f" {tokenizer.mask_token} "))
    filled = model.fill([ids], at_least=at_least, at_most=at_most, watch=watch)[0]
    words = [tokenizer.decode(filled.ids[start:stop]) for start, stop in filled.gaps]
    return _judged(model, torch.tensor(filled.ids, device=model.device), {}), words


def _judged(
    model: ElectraForConditionalGeneration, ids: torch.Tensor, named: dict[int, list[tuple[str, float]]]
) -> Reading:
    suspicion = None
    if model.discriminator is not None:
        layout = Layout.of([ids.numel()], model.device)
        suspicion = model.discriminator.token_logits(ids, layout).float().sigmoid()[1:-1].tolist()
    tokens = [str(name) for name in model.tokenizer.convert_ids_to_tokens(ids[1:-1].tolist())]
    return Reading(tokens, named, suspicion)
