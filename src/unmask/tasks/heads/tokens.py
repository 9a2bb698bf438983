"""ELECTRA for tokens: each word's tag is read off its first piece (BERT paper, 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unmask.data.finetuning import LabelledTokens
from unmask.electra.heads import ElectraForTokenClassification
from unmask.tasks.entities import OUTSIDE
from unmask.tasks.heads.head import Decisions, ElectraTaskModel
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.training.batches import task_loss, to_tensor
from unmask.training.loop import Batch, Loss

#: A piece that has no tag.
NONE = -100


class TaggingModel(ElectraTaskModel):
    """A tag for each word. A row that is too long is read in parts, so every word has one."""

    model_class = ElectraForTokenClassification
    model: ElectraForTokenClassification
    smooths = True

    def examples(self, rows: Sequence[Row]) -> LabelledTokens:
        return self._encoded(rows, learn=True)[0]

    def _encoded(self, rows: Sequence[Row], *, learn: bool) -> tuple[LabelledTokens, list[tuple[int, int]]]:
        """Parts of the rows with a label on the first piece of each word, and of each part its row and the number of
        its first word. Where nothing is to be learnt the labels are zeros: what matters is where they are."""
        number = {label: index for index, label in enumerate(self.labels)}
        words = [row.sources[0].split() for row in rows]
        known = list(dict.fromkeys(word for some in words for word in some))
        encoded = self.tokenizer.encode_batch(known, add_special_tokens=False)
        # A word of nothing that the vocabulary keeps still has a place.
        pieces = {
            word: ids or [self.tokenizer.unk_token_id] for word, ids in zip(known, encoded, strict=True)
        }
        inputs, labels, places = list[list[int]](), list[list[int]](), list[tuple[int, int]]()
        for place, (row, some) in enumerate(zip(rows, words, strict=True)):
            tags = [number[tag] for tag in row.target.split()] if learn else [0] * len(some)
            for first, last in self._parts([len(pieces[word]) for word in some]):
                ids, marks = [self.tokenizer.cls_token_id], [NONE]
                for word, tag in zip(some[first:last], tags[first:last], strict=True):
                    kept = pieces[word][: self.limit - 2]
                    ids += kept
                    marks += [tag, *[NONE] * (len(kept) - 1)]
                inputs.append([*ids, self.tokenizer.sep_token_id])
                labels.append([*marks, NONE])
                places.append((place, first))
        return LabelledTokens(inputs, labels), places

    def _parts(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """[first, last) of the words that are read together."""
        parts, first, held = list[tuple[int, int]](), 0, 2
        for place, length in enumerate(lengths):
            if place > first and held + length > self.limit:
                parts.append((first, place))
                first, held = place, 2
            held += length
        return [*parts, (first, len(lengths))]

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        logits = self.model.token_logits(*self.packed(batch))
        labels = to_tensor(batch["token_labels"], self.device)
        marked = labels != NONE
        logits, labels = logits[marked].float(), labels[marked]
        loss_sum = nn.functional.cross_entropy(
            logits, labels, self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )
        hits = (logits.argmax(-1) == labels).sum()
        of = self.weight_of(whole["token_labels"][whole["token_labels"] != NONE])
        return task_loss(loss_sum, len(labels), of, len(batch["inputs"]), hits)

    def balance(self, rows: Sequence[Row]) -> None:
        self.weigh([tag for row in rows for tag in row.target.split()])

    def decisions(self, batch: Batch) -> Decisions:
        labels = to_tensor(batch["token_labels"], self.device)
        marked = labels != NONE
        counts = [int(part.sum()) for part in marked.split(batch["lengths"].tolist())]
        logits = self.model.token_logits(*self.packed(batch))[marked].float()
        return Decisions(logits, labels[marked], counts)

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        source, places = self._encoded(rows, learn=False)
        tags = [[OUTSIDE] * len(row.sources[0].split()) for row in rows]
        for numbers, batch in self.batches(source):
            best = self.model.token_logits(*self.packed(batch)).argmax(-1).cpu()
            marked = torch.from_numpy(batch["token_labels"]) != NONE
            lengths = batch["lengths"].tolist()
            parts = zip(best.split(lengths), marked.split(lengths), strict=True)
            for number, (found, kept) in zip(numbers, parts, strict=True):
                row, first = places[number]
                named = [self.labels[tag] for tag in found[kept].tolist()]
                tags[row][first : first + len(named)] = named
        return [Prediction(" ".join(some)) for some in tags]
