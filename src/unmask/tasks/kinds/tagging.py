"""A tag for each token of a text: named entities, parts of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.entities import OUTSIDE, Entity, as_iob2, spans, tags_of, types_of
from unmask.tasks.kinds.kind import Head, Kind, Row, list_of, text_of
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


class Tagging(Kind):
    """The source is tokens and the target their tags, both separated by spaces or given as lists.

    Entities are tagged B-TYPE, I-TYPE and O; IOB1, where I- also begins one, is made into IOB2. T5 writes the entities
    in their order, `person: Ada Lovelace ; place: London`; what it writes is looked up in the tokens from left to
    right, and what is not found there is dropped. Where tags are no entities (parts of speech), it writes every run of
    equal tags in the same form.
    """

    name: ClassVar[str] = "tagging"
    metrics: ClassVar[tuple[Metric, ...]] = ("entity_f1", "entity_precision", "entity_recall", "tag_accuracy")
    head: ClassVar[Head] = "tokens"
    closed: ClassVar[bool] = True
    SEPARATOR = " ; "

    def check(self, task: Task) -> None:
        if len(task.source) != 1:
            raise UserError(
                f"task {task.name!r}: tagging has one source column, the tokens, and 'source' names {len(task.source)}"
            )

    def row(self, task: Task, number: int, values: Mapping[str, Any], where: str) -> Row:
        tokens = self._tokens(values[task.source[0]], task.source[0], where)
        if task.target not in values:
            return Row(number, (" ".join(tokens),), ())
        tags = self._tokens(values[task.target], task.target, where)
        if len(tags) != len(tokens):
            raise UserError(
                f"{where}: {len(tokens)} tokens in {task.source[0]!r} but {len(tags)} tags in {task.target!r}"
            )
        named = [task.labels.get(tag, tag) for tag in tags]
        return Row(number, (" ".join(tokens),), (" ".join(as_iob2(named)),))

    @staticmethod
    def _tokens(value: Any, column: str, where: str) -> list[str]:
        given = list_of(value, column, where)
        if given is None:
            return text_of(value, column, where).split()
        # A space inside of a token would make two of it.
        tokens = ["_".join(text_of(token, column, where).split()) for token in given]
        if not tokens:
            raise UserError(f"{where}: the column {column!r} has no value")
        return tokens

    def named_labels(self, task: Task) -> tuple[str, ...]:
        # Words are of types of entities, not of tags.
        return tuple(dict.fromkeys(task.labels.values()))

    def words(self, task: Task, labels: Sequence[str]) -> list[str]:
        return [task.word(type_) for type_ in types_of(labels)]

    def labels(self, task: Task, rows: Sequence[Row]) -> tuple[str, ...]:
        if named := self.named_labels(task):
            return named
        return tuple(sorted({tag for row in rows for tag in row.target.split()}))

    def target_text(self, task: Task, row: Row) -> str:
        tokens, tags = row.sources[0].split(), row.target.split()
        return self.SEPARATOR.join(
            f"{task.word(found.type)}: {' '.join(tokens[found.start : found.stop])}" for found in spans(tags)
        )

    def answer(self, task: Task, row: Row, written: str, labels: Sequence[str]) -> str:
        tokens = row.sources[0].split()
        names = {task.word(type_): type_ for type_ in types_of(labels)}
        found: list[Entity] = []
        place = 0
        for part in written.split(self.SEPARATOR.strip()):
            word, colon, text = part.partition(":")
            wanted = text.split()
            known = colon and wanted and word.strip() in names
            start = _find(tokens, wanted, place) if known else None
            if start is not None:
                found.append(Entity(names[word.strip()], start, start + len(wanted)))
                place = start + len(wanted)
        return " ".join(tags_of(found, len(tokens), labels))

    def simple_baseline(
        self, task: Task, training: Sequence[Row], rows: Sequence[Row]
    ) -> tuple[str, list[str]]:
        """Each token's most frequent tag in training; of a token never seen the most frequent of all."""
        counts: dict[str, Counter[str]] = {}
        for row in training:
            for token, tag in zip(row.sources[0].split(), row.target.split(), strict=True):
                counts.setdefault(token, Counter())[tag] += 1
        overall = sum(counts.values(), Counter[str]())
        outside = max(sorted(overall), key=overall.__getitem__)
        best = {token: max(sorted(found), key=found.__getitem__) for token, found in counts.items()}
        return "each token's most frequent tag", [
            " ".join(best.get(token, outside) for token in row.sources[0].split()) for row in rows
        ]

    def neighbours(self, task: Task, row: Row, answer: str) -> str:
        """As many tags as the row has tokens."""
        tags, count = answer.split(), len(row.sources[0].split())
        return " ".join([*tags, *[OUTSIDE] * count][:count])


def _find(tokens: Sequence[str], wanted: Sequence[str], first: int) -> int | None:
    """Where `wanted` stands in `tokens`, from `first` on."""
    for start in range(first, len(tokens) - len(wanted) + 1):
        if list(tokens[start : start + len(wanted)]) == list(wanted):
            return start
    return None
