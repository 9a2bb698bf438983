"""Tiny models of both families, with random weights and tokenizers trained on a few words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import electra_config

from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer

CPU = torch.device("cpu")
FAMILIES = ("t5", "electra")
TEXT = """The cat sat on the mat . The dog barked at me today , and I like it .
question: Who sat on the mat? context: choice1: choice2: sentence1: sentence2: premise: hypothesis: label
good bad yes no true false entailment contradiction neutral person: location: Ada Lovelace lived in London ;
one two three four five 0.0 1.2 2.4 3.6 4.8 5.0 unanswerable duplicate acceptable similar paragraph answer"""
LETTERS = " ".join(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()[]-_/{}#&@*$%+=<>"
)


def save_electra(directory: Path, texts: list[str], *, positions: int = 128) -> Path:
    """A pair with shared embeddings."""
    tokenizer = ElectraTokenizer.train([*texts, LETTERS] * 3, 260)
    none = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "summary_last_dropout"), 0.0)
    config = electra_config(
        tokenizer.vocab_size, width=32, layers=2, max_position_embeddings=positions, **none
    )
    torch.manual_seed(0)
    ElectraPair.fresh(config, config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_t5(directory: Path, texts: list[str]) -> Path:
    tokenizer = T5Tokenizer.train([*texts, LETTERS] * 3, 400)
    config = T5Config(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
    )
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family → a model directory; nothing writes there."""
    root = tmp_path_factory.mktemp("tiny")
    texts = TEXT.splitlines()
    return {"electra": save_electra(root / "electra", texts), "t5": save_t5(root / "t5", texts)}
