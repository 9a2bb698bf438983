"""What is on disk: both libraries read what the other wrote, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmask import T5Config, T5EncoderModel, T5ForConditionalGeneration
from unmask.errors import UserError

Reference = Callable[..., Any]
Saved = Callable[[Any], Path]


def tensors(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


def rewrite(directory: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = tensors(directory)
    change(weights)
    save_file({name: tensor.clone() for name, tensor in weights.items()}, directory / "model.safetensors")


def rewrite_config(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.fixture
def directory(reference: Reference, saved: Saved) -> Path:
    return saved(reference("v1.1"))


@pytest.mark.parametrize("head", ["ForConditionalGeneration", "EncoderModel"])
def test_what_unmask_writes_transformers_loads(
    variant: str, head: str, reference: Reference, saved: Saved, tmp_path: Path
) -> None:
    theirs = reference(variant, head)
    ours = {"ForConditionalGeneration": T5ForConditionalGeneration, "EncoderModel": T5EncoderModel}[head]
    ours.from_pretrained(saved(theirs)).save_pretrained(tmp_path / "back")
    back, report = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    wanted = theirs.state_dict()
    found = back.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    assert back.config.architectures == [type(theirs).__name__]
    for name in (
        "model_type",
        "scale_decoder_outputs",
        "num_decoder_layers",
        "feed_forward_proj",
        "num_layers",
    ):
        if hasattr(theirs.config, name):
            assert getattr(back.config, name) == getattr(theirs.config, name)
    # And once more into unmask, bit for bit.
    again = ours.from_pretrained(tmp_path / "back")
    assert all(
        torch.equal(tensor, again.state_dict()[name])
        for name, tensor in ours.from_pretrained(tmp_path / "model").state_dict().items()
    )


def test_a_fresh_model_goes_to_transformers(tmp_path: Path) -> None:
    ours = T5ForConditionalGeneration(
        T5Config(
            vocab_size=31,
            d_model=16,
            d_kv=4,
            d_ff=24,
            num_layers=2,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    ).eval()
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is transformers.T5ForConditionalGeneration
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = torch.tensor([[4, 9, 2, 1]])
    torch.testing.assert_close(
        ours(ids, labels=ids).logits, theirs(ids, labels=ids).logits, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_stored_type_is_kept_in_name_and_bytes(dtype: str, directory: Path, tmp_path: Path) -> None:
    T5ForConditionalGeneration.from_pretrained(directory, dtype=dtype).save_pretrained(tmp_path / "narrow")
    assert json.loads((tmp_path / "narrow" / "config.json").read_text())["dtype"] == dtype
    assert {tensor.dtype for tensor in tensors(tmp_path / "narrow").values()} == {getattr(torch, dtype)}
    wide = T5ForConditionalGeneration.from_pretrained(tmp_path / "narrow")
    assert next(wide.parameters()).dtype == torch.float32


def test_copies_in_the_first_files_of_the_hub(reference: Reference, saved: Saved) -> None:
    """t5-small's own file repeats the embedding and holds a bias table that nothing uses."""
    theirs = reference("v1.0")
    directory = saved(theirs)

    def add_copies(weights: dict[str, Tensor]) -> None:
        for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
            weights[name] = weights["shared.weight"].clone()
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        weights[unused] = torch.zeros(32, 3)

    rewrite(directory, add_copies)
    rewrite_config(directory, tie_word_embeddings=None, scale_decoder_outputs=None)
    ours = T5ForConditionalGeneration.from_pretrained(directory)
    assert ours.output is None
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(
        ours(ids, labels=ids).logits, theirs(ids, labels=ids).logits, atol=1e-4, rtol=1e-4
    )


def test_an_embedding_under_a_copy_s_name_alone(directory: Path) -> None:
    expected = T5ForConditionalGeneration.from_pretrained(directory).embedding.weight
    rewrite(
        directory,
        lambda weights: weights.update({"encoder.embed_tokens.weight": weights.pop("shared.weight")}),
    )
    assert torch.equal(T5ForConditionalGeneration.from_pretrained(directory).embedding.weight, expected)


def test_the_original_config_of_v1_1(reference: Reference, saved: Saved) -> None:
    """The Hub's says only that nothing is tied; that also means that nothing is scaled."""
    theirs = reference("v1.1")
    directory = saved(theirs)
    rewrite_config(directory, tie_word_embeddings=False, scale_decoder_outputs=None)
    ours = T5ForConditionalGeneration.from_pretrained(directory)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(
        ours(ids, labels=ids).logits, theirs(ids, labels=ids).logits, atol=1e-4, rtol=1e-4
    )


def test_the_original_config_of_umt5(reference: Reference, saved: Saved) -> None:
    """The Hub's says that nothing is tied, so nothing is scaled, as in umT5's training and Transformers 4.

    Transformers 5 forgot what the file says and scaled all umT5s alike, by d_model^-0.5, until 5.24.
    """
    theirs = reference("umT5")
    directory = saved(theirs)
    rewrite_config(directory, tie_word_embeddings=False)
    ours = T5ForConditionalGeneration.from_pretrained(directory)
    ids = torch.tensor([[5, 6, 7]])
    found, expected = ours(ids, labels=ids).logits, theirs(ids, labels=ids).logits
    scale = (expected.norm() / found.norm()).item()
    assert min(abs(scale - 1), abs(scale - 32**-0.5)) < 1e-4
    torch.testing.assert_close(found * scale, expected, atol=1e-4, rtol=1e-4)


def test_the_original_config_of_mt5(reference: Reference, saved: Saved) -> None:
    theirs = reference("mT5")
    directory = saved(theirs)
    rewrite_config(directory, tie_word_embeddings=False)
    ours = T5ForConditionalGeneration.from_pretrained(directory)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(
        ours(ids, labels=ids).logits, theirs(ids, labels=ids).logits, atol=1e-4, rtol=1e-4
    )


def as_pickle(directory: Path, shards: int) -> None:
    """The same weights as Transformers wrote them before safetensors."""
    weights = tensors(directory)
    no_weights(directory)
    if shards == 1:
        torch.save(weights, directory / "pytorch_model.bin")
        return
    names = list(weights)
    where = {
        name: f"pytorch_model-{place % shards + 1:05}-of-{shards:05}.bin" for place, name in enumerate(names)
    }
    for file in set(where.values()):
        torch.save({name: weights[name] for name in names if where[name] == file}, directory / file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize("shards", [1, 3])
def test_legacy_weights(shards: int, directory: Path) -> None:
    expected = T5ForConditionalGeneration.from_pretrained(directory).state_dict()
    as_pickle(directory, shards)
    found = T5ForConditionalGeneration.from_pretrained(directory).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_oldest_form_of_legacy_weights(directory: Path) -> None:
    """Files from before PyTorch 1.6 are no zip archives."""
    weights = tensors(directory)
    no_weights(directory)
    torch.save(weights, directory / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    T5ForConditionalGeneration.from_pretrained(directory)


def test_safetensors_come_before_pickles(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"never opened")
    T5ForConditionalGeneration.from_pretrained(directory)


class Bomb:
    """What a pickle can do to whoever loads it."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.crater,))


def test_a_pickle_never_runs_code(directory: Path, tmp_path: Path) -> None:
    no_weights(directory)
    torch.save({"shared.weight": Bomb(tmp_path / "crater")}, directory / "pytorch_model.bin")
    with pytest.raises(UserError, match="could run code"):
        T5ForConditionalGeneration.from_pretrained(directory)
    assert not (tmp_path / "crater").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"text"])
def test_a_damaged_pickle_is_named(content: bytes, directory: Path) -> None:
    no_weights(directory)
    (directory / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"pytorch_model\.bin") as caught:
        T5ForConditionalGeneration.from_pretrained(directory)
    assert "\n" not in str(caught.value)


def test_a_pickle_of_something_else_is_named(directory: Path) -> None:
    no_weights(directory)
    for content in ([torch.zeros(1)], {"state_dict": {}}, {1: torch.zeros(1)}):
        torch.save(content, directory / "pytorch_model.bin")
        with pytest.raises(UserError, match="no dictionary of names and tensors"):
            T5ForConditionalGeneration.from_pretrained(directory)


def test_shards(reference: Reference, tmp_path: Path) -> None:
    theirs = reference("v1.1")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ours = T5ForConditionalGeneration.from_pretrained(tmp_path)
    for name, tensor in theirs.state_dict().items():
        if "embed_tokens" not in name:
            assert torch.equal(ours.hub_state()[name], tensor)


def test_generation_settings_come_back(directory: Path, tmp_path: Path) -> None:
    (directory / "generation_config.json").write_text('{"max_new_tokens": 3, "num_beams": 1}')
    ours = T5ForConditionalGeneration.from_pretrained(directory)
    assert ours.generate(torch.tensor([[5, 6, 7]])).shape[1] <= 4
    ours.save_pretrained(tmp_path / "back")
    kept = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert kept["max_new_tokens"] == 3
    assert kept["decoder_start_token_id"] == 0


def missing_tensor(directory: Path) -> None:
    rewrite(directory, lambda weights: weights.pop("decoder.block.1.layer.1.EncDecAttention.k.weight"))


def wrong_shape(directory: Path) -> None:
    rewrite(directory, lambda weights: weights.update({"shared.weight": torch.zeros(9, 32)}))


def whole_numbers(directory: Path) -> None:
    rewrite(directory, lambda weights: weights.update({"shared.weight": weights["shared.weight"].long()}))


def truncated(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_safetensors(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\x80\x04 no header")


def no_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def bad_json(directory: Path) -> None:
    (directory / "config.json").write_text('{"d_model": 32,')


def a_list_as_config(directory: Path) -> None:
    (directory / "config.json").write_text("[]")


def no_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def another_family(directory: Path) -> None:
    rewrite_config(directory, model_type="bert")


def unknown_feed_forward(directory: Path) -> None:
    rewrite_config(directory, feed_forward_proj="swish-squared")


def text_for_a_number(directory: Path) -> None:
    rewrite_config(directory, d_model="32")


def a_switch_for_a_number(directory: Path) -> None:
    rewrite_config(directory, num_layers=True)


def no_decoder_layers(directory: Path) -> None:
    rewrite_config(directory, num_decoder_layers=0)


def labels_in_a_list(directory: Path) -> None:
    rewrite_config(directory, id2label=["a", "b"])


def text_for_a_number_of_labels(directory: Path) -> None:
    rewrite_config(directory, num_labels="two")


def a_shard_outside(directory: Path) -> None:
    no_weights(directory)
    index = {"weight_map": {"shared.weight": "../elsewhere.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def a_shard_that_is_missing(directory: Path) -> None:
    no_weights(directory)
    index = {"weight_map": {"shared.weight": "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def a_shard_that_is_a_number(directory: Path) -> None:
    no_weights(directory)
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"shared.weight": 3}}')


def an_indexed_tensor_in_no_shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "only.safetensors")
    index = {"weight_map": dict.fromkeys(["shared.weight", "nowhere.weight"], "only.safetensors")}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def no_weight_map(directory: Path) -> None:
    no_weights(directory)
    (directory / "model.safetensors.index.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (missing_tensor, "decoder.block.1.layer.1.EncDecAttention.k.weight"),
        (wrong_shape, r"shared.weight.*\(9, 32\).*\(61, 32\)"),
        (whole_numbers, "shared.weight' is of torch.int64, not of floating point"),
        (truncated, "model.safetensors"),
        (not_safetensors, "model.safetensors"),
        (no_weights, "model.safetensors"),
        (bad_json, "config.json"),
        (a_list_as_config, "config.json"),
        (no_config, "config.json"),
        (another_family, "bert"),
        (unknown_feed_forward, "swish-squared"),
        (text_for_a_number, "d_model is '32', it must be int"),
        (a_switch_for_a_number, "num_layers is True, it must be int"),
        (no_decoder_layers, "num_decoder_layers is 0, it must be at least 1"),
        (labels_in_a_list, "id2label is .*, not an object"),
        (text_for_a_number_of_labels, "num_labels is 'two', not a whole number"),
        (a_shard_outside, "outside"),
        (a_shard_that_is_missing, "model-00001-of-00002.safetensors"),
        (a_shard_that_is_a_number, "3"),
        (an_indexed_tensor_in_no_shard, "nowhere.weight"),
        (no_weight_map, "weight_map"),
    ],
)
def test_damage_is_named_in_one_line(damage: Callable[[Path], None], named: str, directory: Path) -> None:
    damage(directory)
    with pytest.raises(UserError, match=named) as caught:
        T5ForConditionalGeneration.from_pretrained(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize("dtype", ["int4", "double", torch.int32, torch.float8_e4m3fn, 5], ids=str)
def test_an_unknown_type_is_named(dtype: Any, directory: Path) -> None:
    with pytest.raises(UserError, match=f"dtype .*{dtype}.* is not one of float32, "):
        T5ForConditionalGeneration.from_pretrained(directory, dtype=dtype)
