"""New rows for a running batch: sources are read and prompts fed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmask.generation.plan import Plan
from unmask.generation.settings import GenerationSettings
from unmask.t5.decoding import T5Decoder
from unmask.t5.engine import engine_of
from unmask.t5.model import T5ForConditionalGeneration


def plan_of(
    model: T5ForConditionalGeneration, prefix: Sequence[int], settings: GenerationSettings, limit: int
) -> Plan:
    """One request's plan.

    Args:
        prefix: ids that the result begins with.
        limit: the most tokens to write behind them.
    """
    config = model.config
    prompt = torch.tensor([[config.decoder_start_token_id, *prefix]], device=model.device)
    return Plan(
        prompt=prompt, end_id=config.eos_token_id, pad_id=config.pad_token_id, limit=limit, settings=settings
    )


@torch.inference_mode()
def start(
    model: T5ForConditionalGeneration, sources: Sequence[Sequence[int]], plans: Sequence[Plan]
) -> tuple[T5Decoder, Tensor]:
    """Read sources and feed their prompts.

    Args:
        sources: ids, `</s>` at the end of each.
        plans: one for each source.

    Returns:
        The decoder, and the logits (rows, vocab_size) behind each prompt.

    Raises:
        UserError: an id that the weights do not know, no memory.
    """
    rows = [torch.tensor(source, device=model.device) for source in sources]
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    packed = model.pack(ids, mask)
    engine = engine_of(model)
    source = engine.encode(packed.ids, packed.layout)
    decoder = T5Decoder(engine, source, packed.layout, max(plan.capacity for plan in plans))
    prompts = nn.utils.rnn.pad_sequence([plan.prompt[0] for plan in plans], batch_first=True)
    if prompts.shape[1] == 1:
        return decoder, decoder.step(prompts[:, 0])
    fed = torch.tensor([plan.prompt_length for plan in plans], device=model.device)
    logits = decoder.advance(prompts, fed)
    return decoder, logits[torch.arange(len(plans), device=model.device), fed - 1]
