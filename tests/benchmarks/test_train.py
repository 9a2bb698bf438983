"""Peers of `benchmarks/train.py` that come from checkouts: here of stand-ins with their interfaces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.pair import ElectraPair
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration

pytest.importorskip("transformers")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

NANOT5 = """
import transformers

class MyT5(transformers.T5ForConditionalGeneration):
    pass
"""
ELECTRA_PYTORCH = """
import a_library_that_is_gone

class ELECTRAModel(nn.Module):
    def __init__(self, generator, discriminator, hf_tokenizer):
        super().__init__()
        self.generator, self.discriminator, self.padding = generator, discriminator, hf_tokenizer.pad_token_id

    def to(self, *args, **kwargs):
        super().to(*args, **kwargs)

    def forward(self, masked, first_lengths, drawn, labels):
        assert not c.my_model and c.sampling == "fp32_gumbel" and first_lengths.tolist() == [masked.shape[1]] * 2
        mask = masked != self.padding
        logits = self.generator(masked, mask)[0][drawn]
        filled = masked.masked_scatter(drawn, torch.distributions.Categorical(logits=logits).sample())
        return logits, self.discriminator(filled, mask)[0], drawn & (filled != labels), drawn

class ELECTRALoss:
    def __init__(self, loss_weights=(1.0, 50.0)):
        self.loss_weights, self.fill = loss_weights, CrossEntropyLossFlat()

    def __call__(self, predicted, labels):
        logits, judged, replaced, drawn = predicted
        first, second = self.loss_weights
        fill = self.fill(logits.float(), labels[drawn])
        return fill * first + F.binary_cross_entropy_with_logits(judged.float(), replaced.float()) * second

a_library_that_is_gone.train()
"""
SCRIPT = """
import json, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import train_electra_pytorch, train_hf, train_nanot5
from worker import training_batch

found = {}
for family, module in {"t5": train_nanot5, "electra": train_electra_pytorch}.items():
    task = {"rows": 2, "source": 16, **({"target": 5} if family == "t5" else {"drawn": 3})}
    batch = training_batch(task, 300)
    found[family] = []
    for each in (train_hf, module):
        run = each.load(Path(sys.argv[2]) / family, "float32", 1)
        *losses, _ = run(batch, True)
        run(batch, False)
        found[family].append(losses)
print(json.dumps(found))
"""


def test_peers_from_checkouts_have_the_losses_of_transformers(tmp_path: Path) -> None:
    T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    config = ElectraConfig(
        vocab_size=300,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    ElectraPair.fresh(generator_config(config, 0.5), config).save_pretrained(tmp_path / "electra")
    checkouts = {"nanoT5/utils/t5_model.py": NANOT5, "pretrain.py": ELECTRA_PYTORCH}
    for name, text in checkouts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(BENCHMARKS / "peers"), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env={
            "NANOT5_CHECKOUT": str(tmp_path),
            "ELECTRA_PYTORCH_CHECKOUT": str(tmp_path),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": ":".join(sys.path),
        },
    )
    for theirs, peers in json.loads(out.stdout.splitlines()[-1]).values():
        assert peers == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--peer", "nanoT5=."),
        ("--device", "cuda", "--peer", "nanoT6=."),
        ("--device", "cuda", "--peer", "nanoT5=gone"),
    ],
)
def test_peers_that_cannot_be(arguments: tuple[str, ...]) -> None:
    script = str(BENCHMARKS / "train.py")
    run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "nanoT5 or electra_pytorch=DIR of a checkout, with --device cuda" in run.stderr
