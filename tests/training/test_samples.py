"""What is shown of a model while it trains."""

from __future__ import annotations

import numpy as np
import torch
from tiny import electra_config

from unmask.data.shards import Shards
from unmask.electra.config import generator_config
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.electra import held_out_batches
from unmask.training.recipe import PretrainRecipe
from unmask.training.samples import electra_sample, t5_sample

CPU = torch.device("cpu")


def test_t5_writes_what_generate_writes(texts: list[str]) -> None:
    tokenizer = T5Tokenizer.train(texts, 370)
    config = T5Config(
        vocab_size=512, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    model = T5ForConditionalGeneration(config).eval()
    sentinels = tokenizer.sentinel_ids
    words = tokenizer.encode(texts[0], add_special_tokens=False)[:50]
    inputs = [
        *words[:4],
        sentinels[0],
        *words[5:9],
        sentinels[1],
        words[9],
        sentinels[2],
        words[10],
        sentinels[3],
        1,
    ]
    targets = [sentinels[0], words[4], sentinels[1], sentinels[2], sentinels[3], words[12], 1]
    other = [5, 6, 1]
    batch = {
        "inputs": np.array(inputs + other, np.int32),
        "input_lengths": np.array([len(inputs), 3], np.int32),
        "targets": np.array(targets + other, np.int32),
        "target_lengths": np.array([len(targets), 3], np.int32),
    }
    sample = t5_sample(model, tokenizer, batch, CPU)
    # To before the fourth sentinel.
    shown = [*inputs[:13], 1]
    assert sample["input"] == tokenizer.decode(shown)
    assert sample["wanted"] == tokenizer.decode([*targets[:4], 1])
    written = model.generate(torch.tensor([shown]), max_new_tokens=13)[0, 1:]
    assert sample["output"] == tokenizer.decode(written.tolist())
    assert sample["text"].startswith(sample["input"])


def test_electra_marks_what_was_replaced(shards: Shards, tokenizer: ElectraTokenizer) -> None:
    config = electra_config(tokenizer.vocab_size, max_position_embeddings=64)
    torch.manual_seed(0)
    pair = ElectraPair.fresh(generator_config(config, 0.5), config).eval()
    recipe = PretrainRecipe(
        family="electra",
        vocab_size=140,
        layers=1,
        width=16,
        heads=2,
        feed_forward_width=32,
        length=64,
        batch_size=4,
        steps=1,
        learning_rate=0.1,
    )
    batch = held_out_batches(recipe, shards, tokenizer)[""][0]
    sample = electra_sample(pair, tokenizer, batch, CPU, noise_seed=1)
    assert sample == electra_sample(pair, tokenizer, batch, CPU, noise_seed=1)
    text = tokenizer.convert_ids_to_tokens(batch["tokens"].tolist())
    shown = list(sample["tokens"])
    assert sample["replaced"]
    for place, original in sample["replaced"].items():
        assert f"{original}→{shown[int(place)]} (" in sample["text"]
        shown[int(place)] = original
    # With the originals in it, it is one of the batch's texts.
    joined = " ".join(shown)
    assert joined in " ".join(str(token) for token in text)
    assert shown[0] == tokenizer.cls_token and shown.count(tokenizer.cls_token) == 1
