"""The config: from and to the Hub's form, what is refused, published shapes, generators' widths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import transformers

from unmask.electra.config import SHAPES, ElectraConfig, generator_config
from unmask.errors import UserError


def test_defaults_are_those_of_transformers() -> None:
    assert ElectraConfig.from_hub(transformers.ElectraConfig().to_dict()) == ElectraConfig()


def test_there_and_back() -> None:
    config = ElectraConfig(labels=("cold", "hot"), problem_type="regression", classifier_dropout=0.2)
    assert ElectraConfig.from_hub(config.to_hub()) == config


def test_label_names_are_read_in_order() -> None:
    names = {str(number): f"tag {number}" for number in range(11)}
    assert ElectraConfig.from_hub({"id2label": names}).labels == tuple(names.values())
    assert ElectraConfig.from_hub({"num_labels": 3}).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_what_shapes_no_model_is_ignored() -> None:
    published = {"model_type": "electra", "summary_type": "first", "use_cache": True, "dtype": "float32"}
    assert ElectraConfig.from_hub(published) == ElectraConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "roberta"}, "config.json is of model type 'roberta', not electra"),
        ({"hidden_act": "mish"}, "config.json: hidden_act 'mish' is not one of gelu, "),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not supported, only 'absolute'"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"hidden_size": 250}, "hidden_size 250 is not a multiple of num_attention_heads 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": "many"}, "config.json: vocab_size is 'many', it must be int"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0, it must be int"),
        ({"hidden_act": ["gelu"]}, "hidden_act is .*, it must be str"),
        ({"id2label": ["a", "b"]}, "id2label is .*, not an object"),
        ({"num_labels": "3"}, "num_labels is '3', not a whole number"),
        ({"num_labels": 0}, "num_labels is 0, not a whole number, at least 1"),
        ({"problem_type": "ranking"}, "problem_type 'ranking'"),
        ({"id2label": {"1": "a", "2": "b"}}, "count from 0"),
        ({"id2label": {"0": "a", "1": "a"}}, "none of them twice"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ElectraConfig.from_hub(values)


@pytest.mark.parametrize(
    ("size", "width", "feed_forward", "heads"),
    [("small", 64, 256, 1), ("base", 256, 1024, 4), ("large", 256, 1024, 4)],
)
def test_generators_of_the_published_shapes(size: str, width: int, feed_forward: int, heads: int) -> None:
    shape = SHAPES[size]
    generator = generator_config(shape.discriminator, shape.generator_width)
    assert (generator.hidden_size, generator.intermediate_size, generator.num_attention_heads) == (
        width,
        feed_forward,
        heads,
    )
    shared = replace(generator, hidden_size=shape.discriminator.hidden_size, num_attention_heads=1)
    assert shared == replace(shape.discriminator, intermediate_size=feed_forward, num_attention_heads=1)


def test_odd_widths_get_heads_that_divide_them() -> None:
    config = ElectraConfig(hidden_size=144, num_attention_heads=4)
    generator = generator_config(config, 0.6)
    assert generator.hidden_size == 86
    assert generator.num_attention_heads == 2
    with pytest.raises(UserError, match=r"generator width 1\.5"):
        generator_config(config, 1.5)
