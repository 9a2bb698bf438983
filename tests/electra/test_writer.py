"""ELECTRA that writes: the three layouts that it reads, lengths, batches, what it never writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError

WORDS = ["hello", "world", ",", "!", "a", "b", "c", "d", "##e", "f", "g", "the", "of", "and", "to"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZE = len(WORDS) + len(SPECIAL)
CLS, SEP, MASK = 2, 3, 4
PROMPT = [CLS, 5, 7, 6, 8, SEP]

Make = Callable[[str, Path], Path]

PROGRAM = """
from electra import ElectraForConditionalGeneration, ElectraTokenizer
model_name = 'google/electra-small-generative'
tokenizer = ElectraTokenizer.from_pretrained(model_name)
model = ElectraForConditionalGeneration.from_pretrained(model_name)
input_tokens = tokenizer.encode("Hello, world!", return_tensors='pt')
output_tokens = model.generate(input_tokens, max_length=10, num_return_sequences=1)
print(tokenizer.decode(output_tokens[0], skip_special_tokens=True))
"""


@pytest.fixture
def make(reference: Callable[..., Any], tmp_path: Path) -> Make:
    """make(layout, directory): a model with random weights, written by Transformers."""
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in SPECIAL + WORDS))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))

    def write(layout: str, directory: Path) -> Path:
        # More rows than tokens, as in a padded embedding: ids that no text has.
        generator = reference("ElectraForMaskedLM", vocab_size=SIZE + 3)
        if layout == "plain":
            generator.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            return directory
        generator.save_pretrained(directory / "generator")
        if layout == "pair":
            discriminator = reference("ElectraForPreTraining", vocab_size=SIZE + 3)
            discriminator.save_pretrained(directory / "discriminator")
            tokenizer.save_pretrained(directory)
        else:
            tokenizer.save_pretrained(directory / "generator")
        return directory

    return write


@pytest.fixture
def writer(make: Make, tmp_path: Path) -> ElectraForConditionalGeneration:
    return ElectraForConditionalGeneration.from_pretrained(make("pair", tmp_path / "pair"))


@pytest.mark.parametrize("layout", ["pair", "generator alone", "plain"])
def test_the_program_word_for_word(layout: str, make: Make, tmp_path: Path) -> None:
    make(layout, tmp_path / "google" / "electra-small-generative")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("hello, world! ")
    assert len(run.stdout) > len("hello, world! ")
    assert run.stderr.count("has no discriminator") == (layout != "pair")


@pytest.mark.parametrize("layout", ["pair", "generator alone", "plain"])
def test_there_and_back(layout: str, make: Make, tmp_path: Path) -> None:
    first = ElectraForConditionalGeneration.from_pretrained(make(layout, tmp_path / "first"))
    first.save_pretrained(tmp_path / "second")
    second = ElectraForConditionalGeneration.from_pretrained(tmp_path / "second")
    assert (second.discriminator is None) == (layout != "pair")
    assert torch.equal(first.generate([PROMPT]), second.generate([PROMPT]))
    assert ElectraTokenizer.from_pretrained(tmp_path / "second").decode(PROMPT) == first.tokenizer.decode(
        PROMPT
    )


def test_the_discriminator_has_a_say(writer: ElectraForConditionalGeneration) -> None:
    alone = ElectraForConditionalGeneration(writer.generator, None, writer.tokenizer)
    with_both = writer.generate([PROMPT], max_new_tokens=12)
    without = alone.generate([PROMPT], max_new_tokens=12)
    assert not torch.equal(with_both, without)
    plain = writer.generate([PROMPT], max_new_tokens=12, revisions=0)
    assert torch.equal(plain, alone.generate([PROMPT], max_new_tokens=12, revisions=0))


def test_lengths(writer: ElectraForConditionalGeneration) -> None:
    for options, length in (({"max_length": 10}, 10), ({"max_new_tokens": 4}, 10), ({"max_length": 7}, 7)):
        out = writer.generate(torch.tensor([PROMPT]), **options)
        assert out.shape == (1, length)
        assert out[0, :5].tolist() == PROMPT[:5]
        assert out[0, -1] == SEP
    # A prompt without [SEP] is continued from its last token as well.
    assert torch.equal(writer.generate([PROMPT[:5]], max_length=10), writer.generate([PROMPT], max_length=10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 10, "max_new_tokens": 4}, "max_new_tokens=4 and max_length=10"),
        ({"max_length": 6}, "max_length=6 leaves nothing to write: 6 tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 leaves nothing"),
        ({"max_new_tokens": 30}, "36 tokens is longer than the model's 20 positions"),
        ({"num_return_sequences": 2, "max_length": 10}, "num_return_sequences=2 needs a temperature"),
        ({"num_return_sequences": 0}, "num_return_sequences=0"),
        ({"rounds": 0}, "rounds=0"),
    ],
)
def test_what_is_refused(
    options: dict[str, Any], message: str, writer: ElectraForConditionalGeneration
) -> None:
    with pytest.raises(UserError, match=message):
        writer.generate([PROMPT], **options)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 30.0])
def test_only_real_words_are_written(temperature: float, writer: ElectraForConditionalGeneration) -> None:
    out = writer.generate([PROMPT] * 20, max_length=20, temperature=temperature)
    written = out[:, 5:-1]
    assert (written >= len(SPECIAL)).all()
    assert (written < SIZE).all()


def test_masks_in_the_prompt_are_filled(writer: ElectraForConditionalGeneration) -> None:
    out = writer.generate([[CLS, 5, MASK, 6, SEP]], max_new_tokens=3)[0].tolist()
    assert MASK not in out
    assert (out[1], out[3]) == (5, 6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_answers_as_its_rows_would(
    temperature: float, writer: ElectraForConditionalGeneration
) -> None:
    prompts = [PROMPT, [CLS, 9, SEP], [CLS, 10, 11, 12, 13, 14, 15, SEP]]
    options = {"max_new_tokens": 6, "temperature": temperature, "seed": 3}
    together = writer.generate(prompts, **options)
    assert together.shape == (3, 14)
    for row, prompt in enumerate(prompts):
        # Row r draws by (seed, r): alone, it has to sit in the same row.
        alone = writer.generate([*prompts[:row], prompt], **options)[-1]
        length = len(prompt) + 6
        assert alone[:length].tolist() == together[row, :length].tolist()
        assert (together[row, length:] == 0).all()

    width = max(len(prompt) for prompt in prompts)
    for side in ("right", "left"):
        ids = torch.zeros(3, width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            cells = slice(0, len(prompt)) if side == "right" else slice(width - len(prompt), width)
            ids[row, cells] = torch.tensor(prompt)
        assert torch.equal(writer.generate(ids, (ids != 0).long(), **options), together)


def test_several_results(writer: ElectraForConditionalGeneration) -> None:
    options = {"max_length": 16, "temperature": 2.0}
    out = writer.generate([PROMPT, [CLS, 9, SEP]], num_return_sequences=3, seed=1, **options)
    assert out.shape == (6, 16)
    assert (out[:3, 1] == 5).all()
    assert (out[3:, 1] == 9).all()
    assert len({tuple(row) for row in out.tolist()}) == 6
    assert torch.equal(
        out, writer.generate([PROMPT, [CLS, 9, SEP]], num_return_sequences=3, seed=1, **options)
    )
    other = writer.generate([PROMPT, [CLS, 9, SEP]], num_return_sequences=3, seed=2, **options)
    assert not torch.equal(out, other)


def test_writing_in_training_leaves_no_trace(writer: ElectraForConditionalGeneration) -> None:
    wanted = writer.generate([PROMPT])
    writer.train()
    assert torch.equal(writer.generate([PROMPT]), wanted)
    assert writer.training
    assert writer.generator.training


def test_parts_that_do_not_belong_together(
    writer: ElectraForConditionalGeneration, reference: Callable[..., Any], tmp_path: Path
) -> None:
    reference("ElectraForPreTraining", vocab_size=50).save_pretrained(tmp_path / "pair" / "discriminator")
    with pytest.raises(UserError, match="generator knows 23 tokens, the discriminator 50"):
        ElectraForConditionalGeneration.from_pretrained(tmp_path / "pair")
    reference("ElectraForMaskedLM", vocab_size=10).save_pretrained(tmp_path / "small")
    with pytest.raises(UserError, match="tokenizer has 20 tokens, the generator knows 10"):
        ElectraForConditionalGeneration.from_pretrained(tmp_path / "small", tokenizer=writer.tokenizer)


def test_a_missing_tokenizer_is_named(reference: Callable[..., Any], tmp_path: Path) -> None:
    reference("ElectraForMaskedLM").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        ElectraForConditionalGeneration.from_pretrained(tmp_path)


def test_the_default_limit_fits(writer: ElectraForConditionalGeneration) -> None:
    assert writer.generate([PROMPT]).shape == (1, 20)
    assert writer.generate([[CLS, 9, SEP]], max_length=20).shape == (1, 20)
