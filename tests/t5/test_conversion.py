"""T5X and Flax checkpoints, against arrays placed into Transformers' model by hand."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from unmask import T5ForConditionalGeneration
from unmask.errors import MissingExtraError, UserError
from unmask.t5.conversion import convert, from_flax

msgpack = pytest.importorskip("msgpack", reason="needs the extra [convert]")

Reference = Callable[..., Any]
Saved = Callable[[Any], Path]
Tree = dict[str, Any]


def pack(tree: Any) -> bytes:
    """As flax.serialization does."""

    def extension(value: Any) -> Any:
        kind = "bfloat16" if value.dtype == np.uint16 else value.dtype.name
        return msgpack.ExtType(1, msgpack.packb((value.shape, kind, value.tobytes())))

    return msgpack.packb(tree, default=extension)


def unpack(data: bytes) -> Tree:
    def array(_: int, data: bytes) -> np.ndarray:
        shape, kind, buffer = msgpack.unpackb(data)
        return np.frombuffer(buffer, kind).reshape(shape)

    return msgpack.unpackb(data, ext_hook=array)


@pytest.fixture
def golden(shared_data: Path) -> Path:
    return shared_data / "golden" / "t5x_tiny.checkpoint_0.gz"


@pytest.fixture
def tree(golden: Path) -> Tree:
    return unpack(gzip.decompress(golden.read_bytes()))


def by_hand(target: Tree) -> Any:
    """Transformers' model with the arrays of a T5X v1.1 put where they belong."""
    config = transformers.T5Config(
        vocab_size=32128,
        d_model=8,
        d_kv=3,
        d_ff=16,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(32128, 8))

    def put(parameter: torch.nn.Parameter, array: np.ndarray) -> None:
        assert parameter.shape == array.shape
        with torch.no_grad():
            parameter.copy_(torch.tensor(array))

    put(model.shared.weight, target["token_embedder"]["embedding"])
    put(model.lm_head.weight, target["decoder"]["logits_dense"]["kernel"].T)
    for name, own, norms in (
        ("encoder", "attention", ["pre_attention_layer_norm", "pre_mlp_layer_norm"]),
        (
            "decoder",
            "self_attention",
            ["pre_self_attention_layer_norm", "pre_cross_attention_layer_norm", "pre_mlp_layer_norm"],
        ),
    ):
        stack, arrays = getattr(model, name), target[name]
        put(stack.final_layer_norm.weight, arrays[f"{name}_norm"]["scale"])
        table = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        put(table, arrays["relpos_bias"]["rel_embedding"].T)
        for number, block in enumerate(stack.block):
            layer = arrays[f"layers_{number}"]
            attentions = [(block.layer[0].SelfAttention, own)]
            if name == "decoder":
                attentions.append((block.layer[1].EncDecAttention, "encoder_decoder_attention"))
            for module, place in attentions:
                for short, long in {"q": "query", "k": "key", "v": "value", "o": "out"}.items():
                    put(getattr(module, short).weight, layer[place][long]["kernel"].T)
            for short in ("wi_0", "wi_1", "wo"):
                put(getattr(block.layer[-1].DenseReluDense, short).weight, layer["mlp"][short]["kernel"].T)
            for part, norm in zip(block.layer, norms, strict=True):
                put(part.layer_norm.weight, layer[norm]["scale"])
    return model


def test_the_golden_checkpoint(golden: Path, tree: Tree, tmp_path: Path) -> None:
    theirs = by_hand(tree["optimizer"]["target"])
    ours = from_flax(golden)
    torch.manual_seed(0)
    ids, labels = torch.randint(2, 32100, (2, 12)), torch.randint(2, 32100, (2, 7))
    expected = theirs(input_ids=ids, labels=labels)
    found = ours(ids, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(
        ours.generate(ids, max_new_tokens=8),
        theirs.generate(ids, max_new_tokens=8, do_sample=False, num_beams=1),
    )
    # The first loss of the original initialiser is about that of guessing.
    assert found.loss is not None
    assert 9 < found.loss.item() < 12
    convert(golden, tmp_path / "model")
    back, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def test_the_tokenizer_goes_along(golden: Path, shared_data: Path, tmp_path: Path) -> None:
    convert(golden, tmp_path / "model", tokenizer=shared_data / "vocab" / "t5")
    from unmask import T5Tokenizer

    assert T5Tokenizer.from_pretrained(tmp_path / "model").encode("Hello, world!") == [8774, 6, 296, 55, 1]


def same(one: T5ForConditionalGeneration, other: T5ForConditionalGeneration) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


def test_plain_and_in_its_directory(golden: Path, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "checkpoint_0").mkdir()
    (tmp_path / "checkpoint_0" / "checkpoint").write_bytes(
        pack({"version": 3, "optimizer": tree["optimizer"]})
    )
    assert same(from_flax(tmp_path / "checkpoint_0"), from_flax(golden))


def test_large_arrays_in_chunks(golden: Path, tree: Tree, tmp_path: Path) -> None:
    embedder = tree["optimizer"]["target"]["token_embedder"]
    whole = embedder["embedding"]
    parts = np.array_split(whole.ravel(), 3)
    embedder["embedding"] = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": whole.shape[0], "1": whole.shape[1]},
        "chunks": {str(number): part for number, part in enumerate(parts)},
    }
    (tmp_path / "checkpoint").write_bytes(pack(tree))
    assert same(from_flax(tmp_path), from_flax(golden))


def test_large_arrays_beside_the_file(golden: Path, tree: Tree, tmp_path: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="needs the extra [convert]")
    target = tree["optimizer"]["target"]

    def store(array: np.ndarray, name: str, dtype: str) -> Tree:
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": str(tmp_path / name)},
            "metadata": {
                "dtype": dtype,
                "shape": array.shape,
                "chunks": [5, 5],
                "compressor": {"id": "gzip"},
            },
        }
        opened = tensorstore.open(spec, create=True).result()
        opened.write(array.astype(opened.dtype.numpy_dtype)).result()
        # As the trainer named it, on a bucket that is long gone.
        return spec | {"kvstore": {"driver": "gfile", "path": f"gs://bucket/run/checkpoint_0/{name}/"}}

    kernel = target["decoder"]["layers_1"]["mlp"]["wo"]
    kernel["kernel"] = store(kernel["kernel"], "target.decoder.layers_1.mlp.wo.kernel", "<f4")
    (tmp_path / "checkpoint").write_bytes(pack(tree))
    assert same(from_flax(tmp_path), from_flax(golden))
    narrow = target["encoder"]["layers_0"]["mlp"]["wo"]
    exact = narrow["kernel"]
    narrow["kernel"] = store(exact, "target.encoder.layers_0.mlp.wo.kernel", "bfloat16")
    (tmp_path / "checkpoint").write_bytes(pack(tree))
    found = from_flax(tmp_path).encoder.layers[0].feed_forward.down.weight
    assert torch.equal(found, torch.tensor(exact).t().bfloat16().float())
    (tmp_path / "target.encoder.layers_0.mlp.wo.kernel" / ".zarray").unlink()
    with pytest.raises(UserError, match="encoder/layers_0/mlp/wo/kernel"):
        from_flax(tmp_path)


def test_v1_0(tree: Tree, tmp_path: Path) -> None:
    """Tied and without a gate: the output is the embedding, scaled."""
    target = tree["optimizer"]["target"]
    del target["decoder"]["logits_dense"]
    for stack in ("encoder", "decoder"):
        for number in range(2):
            mlp = target[stack][f"layers_{number}"]["mlp"]
            del mlp["wi_0"]
            mlp["wi"] = mlp.pop("wi_1")
    (tmp_path / "checkpoint").write_bytes(pack({"target": target}))
    ours = from_flax(tmp_path)
    assert ours.output is None
    assert ours.config.scale_decoder_outputs
    assert ours.config.feed_forward_proj == "relu"
    wanted = torch.tensor(target["decoder"]["layers_1"]["mlp"]["wi"]["kernel"]).t()
    assert torch.equal(ours.decoder.layers[1].feed_forward.up.weight, wanted)


def test_scanned_layers_with_a_table_each(golden: Path, tree: Tree, tmp_path: Path) -> None:
    """umT5's form: layers on the second axis, heads on one of their own."""
    target = tree["optimizer"]["target"]
    tables: dict[str, np.ndarray] = {}

    def stack(parts: list[Any], place: str) -> Any:
        if isinstance(parts[0], dict):
            return {name: stack([part[name] for part in parts], f"{place}/{name}") for name in parts[0]}
        if "attention/" in place and place.endswith("out/kernel"):
            parts = [part.reshape(4, 3, 8) for part in parts]
        elif "attention/" in place and place.endswith("kernel"):
            parts = [part.reshape(8, 4, 3) for part in parts]
        return np.stack(parts, 1)

    for name in ("encoder", "decoder"):
        layers = [target[name].pop(f"layers_{number}") for number in range(2)]
        tables[name] = np.random.default_rng(0).normal(size=(2, 4, 32)).astype(np.float32)
        del target[name]["relpos_bias"]
        for layer, table in zip(layers, tables[name], strict=True):
            layer["relpos_bias"] = {"rel_embedding": table}
        target[name][name] = stack(layers, name)
    (tmp_path / "checkpoint").write_bytes(pack(tree))
    ours, plain = from_flax(tmp_path), from_flax(golden)
    assert ours.config.model_type == "umt5"
    for name in ("encoder", "decoder"):
        for layer, bias in enumerate(getattr(ours, name).position_biases):
            assert torch.equal(bias.table.weight, torch.tensor(tables[name][layer]).t())
    expected = {name: tensor for name, tensor in plain.state_dict().items() if "position_bias" not in name}
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("variant", ["v1.0", "v1.1", "mT5"])
@pytest.mark.parametrize("narrow", [True, False])
def test_flax_models_of_transformers(variant: str, narrow: bool, reference: Reference, saved: Saved) -> None:
    directory = saved(reference(variant))
    wanted = T5ForConditionalGeneration.from_pretrained(directory)
    tree: Tree = {}
    for name, tensor in wanted.hub_state().items():
        *parents, kind = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        last = "embedding" if parents[-1] in ("shared", "relative_attention_bias") else "kernel"
        last = kind if parents[-1].endswith("norm") else last
        array = tensor.t() if last == "kernel" else tensor
        node[last] = array.bfloat16().view(torch.uint16).numpy() if narrow else array.contiguous().numpy()
    (directory / "model.safetensors").unlink()
    (directory / "flax_model.msgpack").write_bytes(pack(tree))
    if narrow:
        wanted = wanted.bfloat16().float()
    assert same(from_flax(directory), wanted)


def test_the_activation_can_be_told(golden: Path) -> None:
    assert from_flax(golden, feed_forward_proj="gated-silu").config.feed_forward_proj == "gated-silu"
    with pytest.raises(UserError, match="feed_forward_prj"):
        from_flax(golden, feed_forward_prj="gated-silu")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        from_flax(tmp_path / "nowhere")
    for content in (b"", b"\x82\xa1", b"\x1f\x8b half", msgpack.packb([1]), msgpack.packb({"a": 1})):
        (tmp_path / "checkpoint").write_bytes(content)
        with pytest.raises(UserError, match="checkpoint") as caught:
            from_flax(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda target: target["decoder"]["layers_1"]["mlp"].pop("wo"), "wo"),
        (lambda target: target["decoder"].pop("relpos_bias"), "relative_attention_bias"),
        (lambda target: target["encoder"].pop("relpos_bias"), "encoder/relpos_bias/rel_embedding"),
        (lambda target: target["encoder"].update(extra={"scale": np.ones(3)}), "encoder/extra/scale"),
        (lambda target: target["token_embedder"].update(embedding="text"), "token_embedder/embedding"),
        (lambda target: target["token_embedder"].update(embedding=msgpack.ExtType(1, b"?")), "damaged"),
        (
            lambda target: target["token_embedder"].update(
                embedding=msgpack.ExtType(1, msgpack.packb(((2, 2), "object", b"1234")))
            ),
            "type object",
        ),
        (
            lambda target: target["token_embedder"].update(
                embedding=msgpack.ExtType(1, msgpack.packb(((9, 9), "float32", b"1234")))
            ),
            "damaged",
        ),
    ],
)
def test_damage_is_named(damage: Callable[[Tree], Any], named: str, tree: Tree, tmp_path: Path) -> None:
    damage(tree["optimizer"]["target"])
    (tmp_path / "checkpoint").write_bytes(pack(tree))
    with pytest.raises(UserError, match=named):
        from_flax(tmp_path)


def test_the_extra_is_named_where_it_is_missing(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(MissingExtraError, match=r"unmask\[convert\]"):
        from_flax(golden)


def test_the_command(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from unmask.cli import app

    out = str(tmp_path / "model")
    app(["convert", str(golden), out, "--feed-forward-proj", "gated-silu"], result_action="return_value")
    assert capsys.readouterr().out.strip() == out
    assert T5ForConditionalGeneration.from_pretrained(out).config.feed_forward_proj == "gated-silu"
