"""How likely a sentence is, untrained: ELECTRA's pseudo-likelihood or its discriminator's trust, T5's filled spans.

- Pseudo-likelihood (Salazar et al. 2020, "Masked Language Model Scoring"): each token is masked alone, and the
  generator's log-probabilities of the tokens that were there are added up.
- Discriminator: the log-probabilities that a token is original, added up over the sentence as it is (the measure that
  replaced-token detection trains).
- Filled span: what the two sentences of a pair have in common stays; where they differ stands a sentinel, and each way
  of filling it is scored as T5 was pre-trained to write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from unmask import hub
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.generation.batching import batches_by_length
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.task import Task
from unmask.training.batches import to_layout

#: Tokens that go through the model together.
BATCH_TOKENS = 8192


class PairsModel:
    """A model that scores sentences; there is nothing to train.

    A subclass gives `scores`: (rows, 2), the log-likelihood of each sentence, in nats.
    """

    model: torch.nn.Module

    def scores(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        raise NotImplementedError

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """The number of the likelier sentence, with its share of the two likelihoods; of equals the second, since
        a model that cannot tell them apart has not found the acceptable one."""
        answers = []
        for pair in self.scores(rows):
            shares = torch.tensor(pair, dtype=torch.float64).softmax(0)
            best = 0 if pair[0] > pair[1] else 1
            answers.append(Prediction(str(best), float(shares[best])))
        return answers

    def examples(self, rows: Sequence[Row]) -> NoReturn:
        raise UserError("minimal pairs are evaluated, not learnt")

    def loss(self, batch: Any, step: int, whole: Any) -> NoReturn:
        raise UserError("minimal pairs are evaluated, not learnt")

    def save_pretrained(self, directory: Path) -> NoReturn:
        raise UserError("minimal pairs are evaluated, not learnt")


class ElectraPairsModel(PairsModel):
    """ELECTRA: a generator by pseudo-likelihood, a discriminator by its trust."""

    def __init__(
        self,
        model: ElectraForMaskedLM | ElectraForPreTraining,
        tokenizer: ElectraTokenizer,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.longest = model.config.max_position_embeddings

    @classmethod
    def load(cls, task: Task, directory: Path, *, device: torch.device) -> ElectraPairsModel:
        """Raises:
        UserError: the half that the task asks for is not there.
        """
        tokenizer = ElectraTokenizer.from_pretrained(directory)
        halves = {"pseudo-likelihood": GENERATOR, "discriminator": DISCRIMINATOR}
        kinds = {"pseudo-likelihood": ElectraForMaskedLM, "discriminator": ElectraForPreTraining}
        there = {name for name, half in halves.items() if (directory / half).is_dir()}
        if not there:
            named = hub.read_json(directory / hub.CONFIG).get("architectures") or ()
            there = {name for name, kind in kinds.items() if kind.architecture in named}
            halves = dict.fromkeys(halves, ".")
        scoring = task.scoring or ("pseudo-likelihood" if "pseudo-likelihood" in there else "discriminator")
        if scoring not in there:
            raise UserError(
                f"{directory} cannot score by {scoring}: it has {', '.join(sorted(there)) or 'neither'} "
                "(a pair's generator or a masked LM, a pair's or a bare discriminator)"
            )
        place = directory / halves[scoring]
        if scoring == "discriminator":
            return cls(ElectraForPreTraining.from_pretrained(place, device=device), tokenizer, device)
        return cls(ElectraForMaskedLM.from_pretrained(place, device=device), tokenizer, device)

    def scores(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        texts = [text for row in rows for text in row.sources]
        encoded = self.tokenizer.encode_batch(texts)
        limit = self.longest
        encoded = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in encoded]
        found = (
            self._pseudo_likelihoods(encoded)
            if isinstance(self.model, ElectraForMaskedLM)
            else self._trust(encoded)
        )
        return list(zip(found[::2], found[1::2], strict=True))

    @torch.inference_mode()
    def _pseudo_likelihoods(self, encoded: Sequence[Sequence[int]]) -> list[float]:
        model = self.model
        assert isinstance(model, ElectraForMaskedLM)
        # Every token between [CLS] and [SEP] of every text, masked alone.
        masked = [(text, place) for text, ids in enumerate(encoded) for place in range(1, len(ids) - 1)]
        sums = torch.zeros(len(encoded), dtype=torch.float64)
        for chosen in batches_by_length([len(encoded[text]) for text, _ in masked], BATCH_TOKENS):
            some = [masked[number] for number in chosen]
            rows = [list(encoded[text]) for text, _ in some]
            for row, (_, place) in zip(rows, some, strict=True):
                row[place] = self.tokenizer.mask_token_id
            layout = to_layout({"lengths": np.array([len(row) for row in rows])}, self.device)
            ids = torch.tensor([token for row in rows for token in row], device=self.device)
            at = layout.starts + torch.tensor([place for _, place in some], device=self.device)
            logits = model.logits(model.hidden(ids, layout, at=at)).float().log_softmax(-1)
            wanted = torch.tensor([encoded[text][place] for text, place in some], device=self.device)
            found = logits.gather(1, wanted[:, None]).squeeze(1).double().cpu()
            sums.index_add_(0, torch.tensor([text for text, _ in some]), found)
        return sums.tolist()

    @torch.inference_mode()
    def _trust(self, encoded: Sequence[Sequence[int]]) -> list[float]:
        model = self.model
        assert isinstance(model, ElectraForPreTraining)
        sums = [0.0] * len(encoded)
        for chosen in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
            lengths = [len(encoded[text]) for text in chosen]
            ids = torch.tensor([token for text in chosen for token in encoded[text]], device=self.device)
            logits = model.token_logits(ids, to_layout({"lengths": np.array(lengths)}, self.device)).float()
            original = torch.nn.functional.logsigmoid(-logits).double().cpu().split(lengths)
            for text, values in zip(chosen, original, strict=True):
                sums[text] = float(values[1:-1].sum())
        return sums


class T5PairsModel(PairsModel):
    """T5: how likely each sentence's words are in the gap where the two differ."""

    def __init__(self, model: T5ForConditionalGeneration, tokenizer: Any, device: torch.device) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device

    @classmethod
    def load(cls, task: Task, directory: Path, *, device: torch.device) -> T5PairsModel:
        model = T5ForConditionalGeneration.from_pretrained(directory, device=device)
        return cls(model, load_tokenizer(directory), device)

    def scores(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """(rows, 2). Two sentences that have all words in common get the same."""
        first, second = self.tokenizer.sentinel_ids[:2]
        end = self.tokenizer.eos_token_id
        found = []
        with torch.inference_mode():
            for row in rows:
                good, bad = (self.tokenizer.encode(text, add_special_tokens=False) for text in row.sources)
                before = _common(good, bad)
                after = _common(good[before:][::-1], bad[before:][::-1])
                source = [*good[:before], first, *good[len(good) - after :], end]
                fills = [[first, *ids[before : len(ids) - after], second] for ids in (good, bad)]
                scores = self.model.score(torch.tensor([source], device=self.device), fills)  # type: ignore[operator]
                found.append((float(scores[0]), float(scores[1])))
        return found


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin alike with."""
    equal = [one == other for one, other in zip(first, second, strict=False)]
    return equal.index(False) if False in equal else len(equal)
