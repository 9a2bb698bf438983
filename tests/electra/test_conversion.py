"""Google's TensorFlow checkpoints: written with Google's names, converted, and judged by numpy alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unmask import ElectraForMaskedLM, ElectraForPreTraining
from unmask.cli import _run
from unmask.electra.conversion import find_checkpoint, from_tensorflow
from unmask.electra.pair import ElectraPair
from unmask.errors import MissingExtraError, UserError

Arrays = dict[str, np.ndarray]
#: vocabulary, embedding, positions; (width, feed-forward, heads) of each half.
VOCABULARY, EMBEDDING, POSITIONS, LAYERS = 50, 12, 16, 2
SIZES = {"electra": (128, 40, 2), "generator": (64, 24, 1)}
IDS = np.array([2, 7, 9, 30, 11, 3])
TYPES = np.array([0, 0, 0, 1, 1, 1])


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    return pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")


def arrays(*scopes: str, untied: bool = False) -> Arrays:
    numbers = np.random.default_rng(0)
    made: Arrays = {"global_step": np.array(7, dtype=np.int64)}

    def add(name: str, *shape: int) -> None:
        made[name] = numbers.normal(0, 0.3, shape).astype(np.float32)

    def dense(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}/kernel", inputs, outputs)
        add(f"{name}/bias", outputs)
        add(f"{name}/kernel/adam_m", inputs, outputs)
        add(f"{name}/kernel/adam_v", inputs, outputs)

    def norm(name: str, width: int) -> None:
        add(f"{name}/gamma", width)
        add(f"{name}/beta", width)

    for tables in ("electra", "generator") if untied else ("electra",):
        add(f"{tables}/embeddings/word_embeddings", VOCABULARY, EMBEDDING)
        add(f"{tables}/embeddings/position_embeddings", POSITIONS, EMBEDDING)
        add(f"{tables}/embeddings/token_type_embeddings", 2, EMBEDDING)
        norm(f"{tables}/embeddings/LayerNorm", EMBEDDING)
    for scope in scopes:
        width, inner, _ = SIZES[scope]
        dense(f"{scope}/embeddings_project", EMBEDDING, width)
        for number in range(LAYERS):
            layer = f"{scope}/encoder/layer_{number}"
            for part in ("query", "key", "value"):
                dense(f"{layer}/attention/self/{part}", width, width)
            dense(f"{layer}/attention/output/dense", width, width)
            norm(f"{layer}/attention/output/LayerNorm", width)
            dense(f"{layer}/intermediate/dense", width, inner)
            dense(f"{layer}/output/dense", inner, width)
            norm(f"{layer}/output/LayerNorm", width)
    if "generator" in scopes:
        dense("generator_predictions/dense", SIZES["generator"][0], EMBEDDING)
        norm("generator_predictions/LayerNorm", EMBEDDING)
        add("generator_predictions/output_bias", VOCABULARY)
    if "electra" in scopes:
        width = SIZES["electra"][0]
        dense("discriminator_predictions/dense", width, width)
        dense("discriminator_predictions/dense_1", width, 1)
    return made


@pytest.fixture
def write(tensorflow: Any, tmp_path: Path) -> Callable[..., Path]:
    """write(arrays): a TensorFlow 1 checkpoint, as `tf.train.Saver` writes it."""

    def save(values: Arrays, name: str = "model.ckpt-7") -> Path:
        v1 = tensorflow.compat.v1
        with tensorflow.Graph().as_default(), v1.Session() as session:
            variables = [v1.get_variable(key, initializer=value) for key, value in values.items()]
            session.run(v1.global_variables_initializer())
            v1.train.Saver(variables).save(session, str(tmp_path / "tf" / name), write_meta_graph=False)
        return tmp_path / "tf"

    return save


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(x: np.ndarray, values: Arrays, name: str) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * values[f"{name}/gamma"] + values[f"{name}/beta"]


def dense(x: np.ndarray, values: Arrays, name: str) -> np.ndarray:
    return x @ values[f"{name}/kernel"] + values[f"{name}/bias"]


def encode(values: Arrays, scope: str, tables: str) -> np.ndarray:
    """The encoder from google-research/electra's description, one text, float64."""
    values = {name: array.astype(np.float64) for name, array in values.items()}
    heads = SIZES[scope][2]
    at = f"{tables}/embeddings"
    x = values[f"{at}/word_embeddings"][IDS] + values[f"{at}/token_type_embeddings"][TYPES]
    x = layer_norm(x + values[f"{at}/position_embeddings"][: len(IDS)], values, f"{at}/LayerNorm")
    x = dense(x, values, f"{scope}/embeddings_project")
    for number in range(LAYERS):
        layer = f"{scope}/encoder/layer_{number}"
        query, key, value = (
            np.split(dense(x, values, f"{layer}/attention/self/{part}"), heads, -1)
            for part in ("query", "key", "value")
        )
        mixed = []
        for q, k, v in zip(query, key, value, strict=True):
            scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
            mixed.append(scores / scores.sum(-1, keepdims=True) @ v)
        y = dense(np.concatenate(mixed, -1), values, f"{layer}/attention/output/dense")
        x = layer_norm(x + y, values, f"{layer}/attention/output/LayerNorm")
        y = dense(gelu(dense(x, values, f"{layer}/intermediate/dense")), values, f"{layer}/output/dense")
        x = layer_norm(x + y, values, f"{layer}/output/LayerNorm")
    return x


def generator_logits(values: Arrays, scope: str, tables: str) -> np.ndarray:
    x = gelu(dense(encode(values, scope, tables), values, "generator_predictions/dense"))
    x = layer_norm(x, values, "generator_predictions/LayerNorm")
    bias = values["generator_predictions/output_bias"]
    return x @ values[f"{tables}/embeddings/word_embeddings"].T + bias


def discriminator_logits(values: Arrays) -> np.ndarray:
    x = gelu(dense(encode(values, "electra", "electra"), values, "discriminator_predictions/dense"))
    return dense(x, values, "discriminator_predictions/dense_1")[:, 0]


def ask(model: Any) -> np.ndarray:
    out = model([IDS.tolist()], token_type_ids=[TYPES.tolist()])
    return out.logits[0].detach().numpy()


@pytest.mark.parametrize("untied", [False, True])
def test_both_halves(
    untied: bool, write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = arrays("electra", "generator", untied=untied)
    source = write(values | {"stray/kernel": np.zeros((2, 3), np.float32)})
    _run(["convert", str(source), str(tmp_path / "pair")])
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "stray/kernel" in line)
    assert line.split() == ["stray/kernel", "2", "×", "3", "unused"]
    model_arrays = [name for name in values if "adam" not in name and name != "global_step"]
    assert f"{len(model_arrays)} used, 1 unused, 0 missing" in printed
    assert "adam" not in printed

    generator = ElectraForMaskedLM.from_pretrained(tmp_path / "pair" / "generator")
    discriminator = ElectraForPreTraining.from_pretrained(tmp_path / "pair" / "discriminator")
    tables = "generator" if untied else "electra"
    np.testing.assert_allclose(ask(generator), generator_logits(values, "generator", tables), atol=1e-4)
    np.testing.assert_allclose(ask(discriminator), discriminator_logits(values), atol=1e-4)
    assert generator.config.num_attention_heads == 1
    assert discriminator.config.num_attention_heads == 2
    if not untied:
        ElectraPair.from_pretrained(tmp_path / "pair")


def test_masked_language_modelling_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    """`electra_objective=False`: the encoder is under `electra/`, and there is no discriminator."""
    values = arrays("electra")
    width = SIZES["electra"][0]
    values = {name: array for name, array in values.items() if "discriminator" not in name}
    extra = arrays("generator")
    values |= {name: extra[name] for name in extra if name.startswith("generator_predictions")}
    values["generator_predictions/dense/kernel"] = np.ones((width, EMBEDDING), np.float32) * 0.01
    _run(["convert", str(write(values)), str(tmp_path / "model")])
    model = ElectraForMaskedLM.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(ask(model), generator_logits(values, "electra", "electra"), atol=1e-4)


def test_other_heads(write: Callable[..., Path]) -> None:
    converted = from_tensorflow(write(arrays("electra", "generator")), num_attention_heads=4)
    assert {half: config.num_attention_heads for half, config in converted.configs.items()} == {
        "generator": 2,
        "discriminator": 4,
    }


def test_a_missing_tensor_is_in_the_table_and_stops(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = arrays("electra")
    del values["electra/encoder/layer_1/output/dense/kernel"]
    assert _run(["convert", str(write(values)), str(tmp_path / "model")]) == 2
    printed = capsys.readouterr()
    line = next(line for line in printed.out.splitlines() if " missing " in line)
    assert line.split()[:5] == ["electra/encoder/layer_1/output/dense/kernel", "40", "×", "128", "missing"]
    assert "lacks the tensor 'electra/encoder/layer_1/output/dense/kernel'" in printed.err
    assert not (tmp_path / "model").exists()


def test_vocabulary_beside_goes_along(write: Callable[..., Path], tmp_path: Path) -> None:
    source = write(arrays("electra"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(45))]
    (source / "vocab.txt").write_text("\n".join(words) + "\n")
    _run(["convert", str(source), str(tmp_path / "model")])
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_the_newest_of_a_directory(tmp_path: Path) -> None:
    for name in ("model.ckpt-9.index", "model.ckpt-100.index", "model.ckpt-20.index"):
        (tmp_path / name).touch()
    newest = tmp_path / "model.ckpt-100"
    assert find_checkpoint(tmp_path) == newest
    assert find_checkpoint(tmp_path / "model.ckpt-9") == tmp_path / "model.ckpt-9"
    assert find_checkpoint(tmp_path / "model.ckpt-9.index") == tmp_path / "model.ckpt-9"
    assert find_checkpoint(tmp_path / "model.ckpt-3") is None


def test_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no TensorFlow checkpoint at .*nowhere"):
        from_tensorflow(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no ELECTRA"):
        from_tensorflow(write({"bert/pooler/dense/kernel": np.zeros((2, 2), np.float32)}))
    (tmp_path / "bad.index").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"bad cannot be read"):
        from_tensorflow(tmp_path / "bad")
    converted = from_tensorflow(write(arrays("electra")))
    with pytest.raises(UserError, match="holds no generator, only discriminator"):
        converted.model("generator")


def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.ckpt.index").touch()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"unmask\[tensorflow\]"):
        from_tensorflow(tmp_path)
