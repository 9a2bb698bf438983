"""`unmask convert`."""

from __future__ import annotations

from pathlib import Path


def convert(
    source: Path,
    out: Path,
    /,
    *,
    tokenizer: str | None = None,
    feed_forward_proj: str | None = None,
    model_type: str | None = None,
) -> None:
    """Turn a checkpoint of T5X or Flax into a model directory that unmask and Transformers read.

    Args:
        source: a T5X checkpoint (the directory checkpoint_N, or the file in it), or a directory with
            flax_model.msgpack.
        out: the model directory to write.
        tokenizer: a model directory or Hub name whose T5 tokenizer goes along.
        feed_forward_proj: the feed-forward's form, which T5X does not keep with the weights; default: gated-gelu
            or relu, as there is a gate or not. UL2 needs gated-silu.
        model_type: t5, mt5 or umt5; default: umt5 where layers have position tables of their own, else t5.
    """
    from unmask.t5.conversion import convert

    given = {"feed_forward_proj": feed_forward_proj, "model_type": model_type}
    settings = {name: value for name, value in given.items() if value is not None}
    convert(source, out, tokenizer=tokenizer, **settings)
    print(out)
