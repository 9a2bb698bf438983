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
    num_attention_heads: int | None = None,
) -> None:
    """Turn a checkpoint of T5X, Flax or Google's ELECTRA, or an adapter, into a model directory that unmask and
    Transformers read.

    Args:
        source: a T5X checkpoint (the directory checkpoint_N, or the file in it), a directory with
            flax_model.msgpack, a TensorFlow checkpoint of ELECTRA (its directory or its prefix), or a LoRA adapter,
            which is merged into its base model.
        out: the model directory to write; for an ELECTRA with both halves, a pair directory.
        tokenizer: a model directory or Hub name whose tokenizer goes along; for ELECTRA by default vocab.txt
            beside the checkpoint.
        feed_forward_proj: the feed-forward's form, which T5X does not keep with the weights; default: gated-gelu
            or relu, as there is a gate or not. UL2 needs gated-silu.
        model_type: t5, mt5 or umt5; default: umt5 where layers have position tables of their own, else t5.
        num_attention_heads: ELECTRA's, which TensorFlow does not keep with the weights; default: width / 64.
    """
    from unmask.cli.conversion_table import show
    from unmask.electra import conversion as electra
    from unmask.errors import UserError
    from unmask.hub import is_adapter
    from unmask.t5 import conversion as t5

    if is_adapter(source):
        from unmask.tasks.adapters import merge_adapter

        merge_adapter(source, out)
        print(out)
        return
    given = {"feed_forward_proj": feed_forward_proj, "model_type": model_type}
    settings = {name: value for name, value in given.items() if value is not None}
    if electra.find_checkpoint(source) is None:
        if num_attention_heads is not None:
            raise UserError("--num-attention-heads is for TensorFlow checkpoints of ELECTRA")
        t5.convert(source, out, tokenizer=tokenizer, **settings)
    elif settings:
        raise UserError(
            f"--{next(iter(settings)).replace('_', '-')} is for checkpoints of T5, this is an ELECTRA"
        )
    else:
        converted = electra.from_tensorflow(source, num_attention_heads=num_attention_heads)
        show(converted.table)
        electra.convert(converted, out, tokenizer=tokenizer)
    print(out)
