"""`unmask pack`: shards that `unmask pretrain` takes, with their tokenizer, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from unmask.cli import _run
from unmask.data.shards import Shards
from unmask.vocabulary.loading import load_any_tokenizer


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_training_on_shards_is_training_on_the_text(
    family: str, corpus: Path, recipes: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = models[family].parent / "tokenizer"
    packed = str(tmp_path / "packed")
    arguments = ["pack", str(corpus), "--tokenizer", str(tokenizer), "--validation-share", "0.1"]
    assert _run([*arguments, "--out", packed]) == 0
    shards = Shards.open(packed, load_any_tokenizer(tokenizer))
    assert shards.checksum == Shards.open(models[family].parent / "data").checksum
    assert shards.train.by_line == (family == "electra")
    flags = ["--steps", "2", "--checkpoint-every", "0", "--threads", "1"]
    run = tmp_path / "run"
    assert _run(["pretrain", str(recipes[family]), "--data", packed, "--out", str(run), *flags]) == 0
    for file in models[family].rglob("model.safetensors"):
        ours = load_file(run / "model" / file.relative_to(models[family]))
        assert all(tensor.equal(ours[name]) for name, tensor in load_file(file).items())


def test_refused(corpus: Path, models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    tokenizer, out = models["t5"], tmp_path / "packed"
    arguments = ["pack", str(corpus), "--tokenizer", str(tokenizer), "--out", str(out)]
    assert _run([*arguments, "--shard-tokens", "500"]) == 0
    assert len(list(out.glob("train-*.tokens"))) == 1, "a batch of documents is not cut"
    assert "--overwrite" in refused(*arguments)
    assert _run([*arguments, "--overwrite", "--validation-share", "0"]) == 0
    assert Shards.open(out).validation.documents == 0
    assert "--shard-tokens 0" in refused(*arguments, "--overwrite", "--shard-tokens", 0)
    assert "validation share is 2" in refused(*arguments, "--overwrite", "--validation-share", 2)
    assert Shards.open(out).train.documents == 80, "what was there stays"
    with (out / "train-00000.tokens").open("r+b") as file:
        file.write(b"\xff")
    assert "is damaged: its checksum differs" in refused(
        "pretrain", "t5-tiny", "--data", out, "--out", tmp_path / "run"
    )
